#!/bin/sh
# What `./run demo` shows, once Pados is built: a year of a grocer's shopping, pushed to a padosd of its own, and asked.
#
# Needs no Python, no network and no root. The server lives in a temporary folder, listens on Unix sockets inside it, and
# is ended and removed with it, however the demo ends. KEEP=1 leaves it running at the end, and says how to ask and stop it.
# NO_COLOR=1 prints without colours; anything that is not a terminal gets none.
#
#   1  the tables are pushed           pados push, pados profile put
#   2  shoppers ask                    pados search, without and with a context, side by side; one hit explained
#   3  recall and speed                pados-bench, beside exact search, faiss-ivf and over-fetching
#   4  what households then bought     pados-evaluate, on weeks that nothing here was tuned on
#   5  the shelves change              pados delete, pados update; the server is killed and comes back
set -eu
cd "$(dirname "$0")/.."
. bench/serve.sh

if [ -t 1 ] && [ -z "${NO_COLOR:-}" ]; then
    bold=$(printf '\033[1m') dim=$(printf '\033[2m') green=$(printf '\033[32m') off=$(printf '\033[0m')
else
    bold='' dim='' green='' off=''
fi
width=100
if [ -t 1 ]; then
    width=$(stty size 2>/dev/null </dev/tty | cut -d' ' -f2) || width=100
    [ "${width:-0}" -ge 80 ] || width=80
    [ "$width" -le 120 ] || width=120
fi

heading() { printf '\n%s%s%s\n\n' "$bold" "$*" "$off"; }
now() { date +%s.%N; }
since() { awk -v a="$1" -v b="$(now)" 'BEGIN { printf "%.1f s", b - a }'; }
# What takes seconds says so on a terminal, and is gone when it is done.
wait_for() { [ ! -t 1 ] || printf '  %s%s ...%s' "$dim" "$*" "$off"; }
waited() { [ ! -t 1 ] || printf '\r\033[K'; }

# ------------------------------------------------------------------------------------------------- .npy files ---

# npy_rows FILE and npy_part FILE FIRST COUNT: how many rows there are, and some of them as a file of their own. Version 1.0,
# C order, f16 x 64, as make.py writes them: the header is padded, so that a smaller number fits where a larger stood.
npy_start() { echo $((10 + $(od -An -tu2 -j8 -N2 "$1"))); }
npy_rows() { head -c "$(npy_start "$1")" "$1" | tr -d '\0' | LC_ALL=C sed -n "s/.*'shape': (\([0-9]*\),.*/\1/p"; }
npy_part() {
    start=$(npy_start "$1")
    head -c 10 "$1"
    head -c "$start" "$1" | tail -c +11 | sed "s/'shape': ([0-9]*, \([0-9]*\)), }.*/'shape': ($3, \1), }/" |
        awk -v n=$((start - 11)) '{ printf "%-" n "s\n", $0 }'
    tail -c +$((start + 1 + $2 * 128)) "$1" | head -c $(($3 * 128))
}

# ---------------------------------------------------------------------------------------------------- asking ---

# ask FILE OPTION...: eight hits as JSON lines, with titles and what the stories look at.
ask() {
    file=$1
    shift
    "$bin/pados" --json search products --k 8 --profile festive --titles "$tables/titles.csv" \
        --attributes price,seasons,stores "$@" >"$file" 2>"$work/step.log" ||
        stop_with "the search failed: pados search products --k 8 --profile festive $*"
}

# who HOUSEHOLD: one line about it.
who() {
    awk -F, -v id="$1" '$1 == id {
        printf "Household %s", id
        if ($2 != "") printf ": aged %s, %s, income %s", $2, tolower($5), $3
        print ", shops at store " $7 }' "$tables/households.csv"
}

# What the awk programs below share: a member of a JSON line ("" where there is none), a number with commas.
library='
    function value(text, name,    at) {
        at = index(text, "\"" name "\":")
        if (!at) return ""
        text = substr(text, at + length(name) + 3)
        sub(/^ +/, "", text)
        if (text !~ /^"/) { sub(/[,}\]].*/, "", text); return text }
        match(text, /^"([^"\\]|\\.)*"/)
        text = substr(text, 2, RLENGTH - 2)
        gsub(/\\/, "", text)
        return text
    }
    function commas(x) {
        x = sprintf("%.0f", x)
        while (match(x, /[0-9][0-9][0-9][0-9]($|,)/)) x = substr(x, 1, RSTART) "," substr(x, RSTART + 1)
        return x
    }
'

# side_by_side COUNTED TEST HEAD: left.json and right.json as two columns under "without context" and HEAD; what moved is marked
# on the right. Under them, how many hits of each side pass TEST (seasons=NAME or stores=NAME), or their mean price (price).
side_by_side() {
    awk -v width="$width" -v counted="$1" -v test="$2" -v head="$3" -v dim="$dim" -v green="$green" -v off="$off" "$library"'
    function row(title, score, price) { return sprintf("%-" room "." room "s %6s" (prices ? " %6s" : ""), title, score, price) }
    function cut(text) { return length(text) > room ? substr(text, 1, room - 2) ".." : text }
    function passes(line) { return prices ? value(line, "price") : index("|" value(line, wanted[1]) "|", "|" wanted[2] "|") > 0 }
    function shown(line) { return row(cut(value(line, "title")), sprintf("%.3f", value(line, "score")), sprintf("%.2f", value(line, "price"))) }
    BEGIN {
        prices = test == "price"
        split(test, wanted, "=")
        room = int((width - (prices ? 41 : 27)) / 2)
    }
    value($0, "id") == "" { next }
    FILENAME ~ /left/ { left[++n] = $0; rank[value($0, "id")] = n; a += passes($0); next }
    { right[++m] = $0; b += passes($0) }
    END {
        print dim "      " row("without context", "score", "price") "        " row(head, "score", "price") off
        for (i = 1; i <= n || i <= m; i++) {
            printf "  %2d  %s", i, i <= n ? shown(left[i]) : row("", "", "")
            if (i <= m) {
                id = value(right[i], "id")
                move = id in rank ? rank[id] - i : "new"
                mark = move == "new" ? move : move > 0 ? "+" move : move ? move "" : "="
                printf "   %s%-4s %s%s", mark == "new" ? green : "", mark, shown(right[i]), mark == "new" ? off : ""
            }
            print ""
        }
        if (prices) printf "\n  %s: %.2f without, %.2f with\n", counted, n ? a / n : 0, m ? b / m : 0
        else printf "\n  %s: %d of %d without, %d of %d with\n", counted, a, n, b, m
    }' "$work/left.json" "$work/right.json"
}

# story TITLE HOUSEHOLD CONTEXT COUNTED TEST
story() {
    printf '%s%s.%s %s\n' "$bold" "$1" "$off" "$(who "$2")"
    printf '  %spados search products --from households:%s --profile festive --context %s%s\n' "$dim" "$2" "$3" "$off"
    ask "$work/left.json" --from "households:$2"
    ask "$work/right.json" --from "households:$2" --context "$3" --explain
    side_by_side "$4" "$5" "with $3"
    echo
}

# explain HOUSEHOLD CONTEXT: the first hit on the right that was not on the left, term by term.
explain() {
    awk -v who="$1" -v context="$2" -v bold="$bold" -v dim="$dim" -v off="$off" "$library"'
    value($0, "id") == "" { next }
    FILENAME ~ /left/ { seen[value($0, "id")] = 1; next }
    !(value($0, "id") in seen) { hit = $0; exit }
    END {
        n = split(substr(hit, index(hit, "\"terms\":")), term, "{")
        if (n < 2) exit 1
        printf "%sWhy \"%s\"%s for household %s with %s?\n", bold, value(hit, "title"), off, who, context
        print "  " dim "--explain gives the terms of every hit; they are the score, not a story about it" off
        for (i = 2; i <= n; i++) {
            weight = value(term[i], "weight")
            name = value(term[i], "attribute") (value(term[i], "value") != "" ? " = " value(term[i], "value") : "")
            sum += weight
            bar = ""
            for (j = 0.5; j < 40 * (weight < 0 ? -weight : weight); j++) bar = bar (weight < 0 ? "-" : "#")
            printf "    %-34s %9.4f  %s\n", name, weight, bar
        }
        printf "    %-34s %9.4f  and its score is %.4f\n", "sum", sum, value(hit, "score")
    }' "$work/left.json" "$work/right.json" || stop_with "the reply explains no hit that is new"
}

# ---------------------------------------------------------------------------------------------------- figures ---

# The first households calibrate, the others are measured, each with its own store and price band, and an occasion by turns.
calibrating=400
bench() {
    households=$(npy_rows "$tables/households.npy")
    npy_part "$tables/households.npy" 0 "$calibrating" >"$work/calibration.npy"
    npy_part "$tables/households.npy" "$calibrating" $((households - calibrating)) >"$work/queries.npy"
    awk -F, -v skip="$calibrating" 'BEGIN { split("thanksgiving,christmas,valentine,", turn, ","); print "festival,week,store,price_band" }
        NR > skip + 1 { print turn[NR % 4 + 1] ",w" 49 + NR % 5 "," $7 "," $8 }' "$tables/households.csv" >"$work/contexts.csv"
    "$bin/pados-bench" --metric cosine --base "$tables/products.npy" --query "$work/queries.npy" \
        --calibration "$work/calibration.npy" --ids "$tables/products_ids.npy" --attributes "$tables/products.csv" \
        --schema "$tables/products.schema" --profile "$tables/shop.conf" --contexts "$work/contexts.csv" \
        --recall 0.95 --threads 1 --batch 1024 --rounds 1 --json "$work/bench.jsonl" >"$work/step.log" 2>&1 </dev/null || stop_with "pados-bench failed"
}

served() {
    "$bin/pados-evaluate" --to "$PADOS_URL" --tables "$tables" --requests 1000 --speed >"$work/speed.txt" 2>"$work/step.log" ||
        stop_with "pados-evaluate --speed failed"
}

print_figures() {
    awk -v rows="$(npy_rows "$tables/products.npy")" -v bold="$bold" -v off="$off" "$library"'
    function line(name, recall, qps, seen) { printf "  %-48s %9s %11s %11s\n", name, recall, qps, seen }
    FILENAME ~ /speed/ { if (/^similarity, exact/) exact = $NF; if (/^similarity, --/) { sr = $(NF - 1); sq = $NF }
        if (/context, exact/) fexact = $NF; if (/context, --/) { fr = $(NF - 1); fq = $NF } next }
    { n++; system_[n] = value($0, "system"); recall[n] = value($0, "recall"); fused[n] = value($0, "fused_recall"); qps[n] = value($0, "qps")
      scanned[n] = value($0, "rows_scanned") }
    END {
        line("similarity alone", "recall@10", "queries/s", "rows seen")
        line("exact search, asked of padosd", "1.0000", commas(exact), commas(rows))
        line("padosd --recall 0.95, asked over its socket", sprintf("%.4f", sr), commas(sq), "")
        for (i = 1; i <= n; i++) if (recall[i] != "")
            line("pados --recall 0.95, in process", sprintf("%.4f", recall[i]), commas(qps[i]), scanned[i] != "" ? commas(scanned[i]) : "")
        print ""
        line("with profile \"shop\" and a context each", "recall@10", "queries/s", "rows seen")
        line("exact search, asked of padosd", "1.0000", commas(fexact), commas(rows))
        line("padosd --recall 0.95, asked over its socket", sprintf("%.4f", fr), commas(fq), "")
        for (i = 1; i <= n; i++) if (fused[i] != "" && system_[i] != "pados-equal-probes") {
            name = system_[i]
            sub(/^pados-overfetch-/, "", name)
            line(name == "pados" ? "pados --recall 0.95, weights in the scan" : "fetch the " commas(name) " most similar, weigh them after",
                sprintf("%.4f", fused[i]), commas(qps[i]), scanned[i] != "" ? commas(scanned[i]) : "")
        }
    }' "$work/speed.txt" "$work/bench.jsonl"
}

# --------------------------------------------------------------------------------------------------- changes ---

# id_of RANK and title_of RANK: of the hits in left.json.
id_of() { awk -v rank="$1" "$library"'value($0, "rank") == rank { print value($0, "id"); exit }' "$work/left.json"; }
title_of() { awk -v rank="$1" "$library"'value($0, "rank") == rank { print value($0, "title"); exit }' "$work/left.json"; }

# top HEAD: the first three hits of left.json with their prices.
top() {
    awk -v head="$1" -v dim="$dim" -v off="$off" "$library"'
        BEGIN { print "  " dim head off }
        value($0, "id") != "" && ++n <= 3 { printf "    %d  %-44.44s %8.2f\n", n, value($0, "title"), value($0, "price") }' "$work/left.json"
}

change() {
    "$bin/pados" "$@" >"$work/step.log" 2>&1 || stop_with "pados $* failed"
    printf '  %spados %s%s\n' "$dim" "$*" "$off" | sed "s|$work/||"
}

# ------------------------------------------------------------------------------------------------------ the demo ---

serve_guard
began=$(now)
printf '%sPados: nearest neighbours in a shopper'"'"'s context%s\n' "$bold" "$off"
echo "Data: Complete Journey (84.51, CC0): a year of one grocer's purchases, by household"

heading "1  Two tables and two profiles are pushed"
at=$(now)
# shellcheck disable=SC2119
serve_start
printf '  %-11s %-46s %8s\n' padosd "answers on a socket of its own" "$(since "$at")"
for table in households products; do
    at=$(now)
    wait_for "pushing $table"
    serve_push "$table"
    waited
    note='a look-up table'
    [ $table = households ] || note='validated, clustered, calibrated'
    printf '  %-11s %6d x 64, %-34s %8s\n' "$table" "$(npy_rows "$tables/$table.npy")" "$note" "$(since "$at")"
done
at=$(now)
serve_profiles
printf '  %-11s %-46s %8s\n' profiles "shop and festive" "$(since "$at")"

heading "2  The same shopper, without and with a context"
echo "  On the right: new = not on the left; +3, -1 = places gained or lost."
echo
story Thanksgiving 8 festival=thanksgiving "Thanksgiving goods" seasons=thanksgiving
explain 8 festival=thanksgiving
echo
story Christmas 20 festival=christmas "Christmas goods" seasons=christmas
story "Valentine's day" 13 festival=valentine "Valentine goods" seasons=valentine
story "A tight budget" 7 price_band=value "mean price" price
story "A store's own favourites" 753 store=396 "favourites of store 396" stores=396

heading "3  Recall and speed, on one thread"
wait_for "measuring beside exact search, faiss-ivf and over-fetching"
served
bench
waited
print_figures

heading "4  What they went on to buy"
wait_for "asking every household in every held-out week"
"$bin/pados-evaluate" --to "$PADOS_URL" --tables "$tables" >"$work/evaluation.txt" 2>"$work/step.log" || stop_with "pados-evaluate failed"
waited
sed 's/^/  /' "$work/evaluation.txt"
echo
echo "  A fixed split: embeddings and popularity come from weeks 1-48, the weights of"
echo "  \"shop\" were tuned on the validation weeks 45-48 alone, and these are weeks 49-53."

heading "5  The shelves change, and the server is killed"
ask "$work/left.json" --from households:8
top "household 8, before"
gone=$(id_of 1)
cheap=$(id_of 2)
[ -n "$gone" ] && [ -n "$cheap" ] || stop_with "household 8 was offered nothing"
printf 'id,price\n%s,0.49\n' "$cheap" >"$work/prices.csv"
echo
change delete products "$gone"
change update products "$work/prices.csv"
at=$(now)
serve_again
printf '  %skill -9; padosd%s  serves again after %s, with what was acknowledged\n\n' "$dim" "$off" "$(since "$at")"
ask "$work/left.json" --from households:8
top "household 8, after"
[ "$(id_of 1)" != "$gone" ] || stop_with "a deleted row came back"

heading "What to try next ($(since "$began") so far)"
if [ -n "${KEEP:-}" ]; then
    cat <<END
  The server stays, as process $server_pid, in $work:
    export PADOS_URL=$PADOS_URL
    $bin/pados search products --from households:8 --profile festive --context festival=christmas,store=367 --explain
    $bin/pados table products
    kill $server_pid && rm -r $work
END
    trap - EXIT
else
    cat <<END
  ./run bench                       beside FAISS and hnswlib on Fashion-MNIST; fused recall; load
  KEEP=1 ./run demo                 this demo again, its server left running
  A server that stays, a table of your own (any .npy in place of this one), a search, and its end:
    $bin/padosd --config configs/demo.conf & sleep 1
    $bin/pados push mine $tables/products.npy --metric cosine
    $bin/pados search mine --id 0 --k 5
    kill %%
END
fi
