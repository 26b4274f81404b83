# Draws what a terminal showed as an SVG, one text element a line:
#     ./run demo | sed -n '/^Thanksgiving\./,/sum  /p' | awk -f docs/picture.awk > docs/session.svg
# "new" lines are green, commands bright, as on the terminal.
function escaped(text)
{
    gsub(/&/, "\\&amp;", text)
    gsub(/</, "\\&lt;", text)
    gsub(/>/, "\\&gt;", text)
    return text
}
{ line[NR] = $0; if (length($0) > widest) widest = length($0) }
END {
    width = widest * 8 + 40
    height = NR * 18 + 36
    printf "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" viewBox=\"0 0 %d %d\">\n", width, height, width, height
    print "<rect width=\"100%\" height=\"100%\" rx=\"8\" fill=\"#10151c\"/>"
    print "<g font-family=\"ui-monospace, SFMono-Regular, Menlo, DejaVu Sans Mono, monospace\" font-size=\"13\" xml:space=\"preserve\">"
    for (i = 1; i <= NR; i++) {
        text = line[i]
        colour = "#c9d4e0"
        if (text ~ /^  pados /) colour = "#8fb8ff"
        else if (text ~ /^[A-Z][^ ]*( |\.)/) colour = "#ffffff"
        else if (text ~ / new  /) colour = "#7ee08a"
        else if (text ~ /#/) colour = "#ffd479"
        # A fixed length keeps the columns whatever font is at hand.
        if (length(text)) printf "<text x=\"20\" y=\"%d\" fill=\"%s\" textLength=\"%d\">%s</text>\n", i * 18 + 12, colour, length(text) * 8, escaped(text)
    }
    print "</g>\n</svg>"
}
