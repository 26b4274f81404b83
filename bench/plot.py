"""Charts as inline SVG: log axes, labels at the lines' ends instead of a legend, colours from the page's CSS (so that a dark page
has dark charts). Knows nothing of benchmarks."""
import math
from html import escape

WIDTH, HEIGHT = 620, 400
LEFT, RIGHT, TOP, BOTTOM = 58, 150, 16, 46


def si(value):
    """1200 -> 1.2k: three digits at most."""
    for limit, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= limit:
            return f"{value / limit:.3g}{suffix}"
    return f"{value:.3g}"


class Axis:
    """Maps values to pixels. kind: log, linear, or recall (-log10(1 - value), so that 0.9, 0.99, 0.999 lie evenly)."""

    def __init__(self, kind, values, start, end, ticks=None, text=si):
        self.kind, self.start, self.end, self.text = kind, start, end, text
        values = [v for v in values if kind != "log" or v > 0]
        low, high = min(values), max(values)
        if kind == "log":
            low, high = low / 1.25, high * 1.25
            if high / low < 3:
                low, high = low / 1.3, high * 1.3
        elif kind == "recall":
            high = min(high, 0.9999)
            low, high = 1 - (1 - low) * 1.15, 1 - (1 - high) * 0.85
        else:
            low, high = 0, high * 1.08
        self.low, self.high = self.f(low), self.f(high)
        self.ticks = ticks or self.natural(low, high)
        self.ticks = [t for t in self.ticks if low <= t <= high]

    def f(self, value):
        if self.kind == "log":
            return math.log10(value)
        return -math.log10(1 - min(value, 0.99995)) if self.kind == "recall" else value

    def natural(self, low, high):
        if self.kind == "recall":
            return [0.2, 0.4, 0.6, 0.7, 0.8, 0.85, 0.9, 0.93, 0.95, 0.97, 0.98, 0.99, 0.995, 0.998, 0.999]
        if self.kind == "linear":
            step = 10 ** math.floor(math.log10(high or 1))
            step = step / 2 if high / step < 3 else step
            return [i * step for i in range(int(high / step) + 1)]
        decades = math.log10(high / low)
        steps = (1, 2, 5) if decades < 2.6 else (1, 3) if decades < 3.6 else (1,)
        first = math.floor(math.log10(low))
        return [m * 10.0**e for e in range(first, math.ceil(math.log10(high)) + 1) for m in steps]

    def __call__(self, value):
        share = (self.f(value) - self.low) / ((self.high - self.low) or 1)
        return self.start + min(share, 1) * (self.end - self.start)  # a recall of 1 stands at the end of its axis


def text_at(x, y, words, anchor="start", css="", extra=""):
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" class="{css}" {extra}>{escape(str(words))}</text>'


def spread_out(places, gap, low, high):
    """Moves label places apart by at least gap, in order, within low..high."""
    order = sorted(range(len(places)), key=lambda i: places[i])
    out = list(places)
    for n, i in enumerate(order):
        if n and out[i] < out[order[n - 1]] + gap:
            out[i] = out[order[n - 1]] + gap
    over = out[order[-1]] - high if order else 0
    for n, i in enumerate(reversed(order)):
        if over <= 0:
            break
        limit = high if n == 0 else out[order[len(order) - n]] - gap
        out[i] = min(out[i], limit)
    return [max(low, y) for y in out]


def frame(x, y, x_label, y_label, height, width=WIDTH):
    parts = []
    for tick in y.ticks:
        parts.append(f'<line x1="{LEFT}" x2="{width - RIGHT}" y1="{y(tick):.1f}" y2="{y(tick):.1f}" class="grid"/>')
        parts.append(text_at(LEFT - 7, y(tick) + 4, y.text(tick), "end", "tick"))
    free = -1e9  # from here on there is room for a label
    for tick in x.ticks:
        parts.append(f'<line x1="{x(tick):.1f}" x2="{x(tick):.1f}" y1="{TOP}" y2="{height - BOTTOM}" class="grid"/>')
        half = 3.8 * len(x.text(tick))
        if x(tick) - half > free:
            parts.append(text_at(x(tick), height - BOTTOM + 17, x.text(tick), "middle", "tick"))
            free = x(tick) + half + 4
    parts.append(text_at((LEFT + width - RIGHT) / 2, height - 8, x_label, "middle", "axis"))
    parts.append(text_at(0, 0, y_label, "middle", "axis", f'transform="translate(13 {(TOP + height - BOTTOM) / 2:.0f}) rotate(-90)"'))
    return parts


def svg(parts, title, height, width=WIDTH):
    return (f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(title)}">' + "".join(parts) + "</svg>")


def lines(series, x_label, y_label, title, x_kind="log", y_kind="log", x_ticks=None, x_text=si, guides=(), height=HEIGHT):
    """series: dicts of name, css (a colour class), points [(x, y, low, high, tip)], and optionally bold, dashed, label. guides:
    (name, [(x, y), ...]) drawn thin. Labels stand at each line's right end."""
    drawn = [s for s in series if s["points"]]
    if not drawn:
        return ""
    xs = [p[0] for s in drawn for p in s["points"]]
    ys = [v for s in drawn for p in s["points"] for v in p[1:4]]
    x = Axis(x_kind, xs, LEFT, WIDTH - RIGHT, x_ticks, x_text)
    y = Axis(y_kind, ys, height - BOTTOM, TOP)
    parts = frame(x, y, x_label, y_label, height)
    for name, points in guides:
        path = " ".join(f"{x(a):.1f},{y(b):.1f}" for a, b in points)
        parts.append(f'<polyline points="{path}" class="guide"/>')
        parts.append(text_at(x(points[-1][0]) - 4, y(points[-1][1]) - 6, name, "end", "tick"))
    ends = []
    for s in drawn:
        points = sorted(s["points"])
        css = s["css"] + (" bold" if s.get("bold") else "") + (" dashed" if s.get("dashed") else "")
        path = " ".join(f"{x(p[0]):.1f},{y(p[1]):.1f}" for p in points)
        if len(points) > 1:
            parts.append(f'<polyline points="{path}" class="line {css}"/>')
        for px, py, low, high, tip in points:
            if y(low) - y(high) > 3:
                parts.append(f'<line x1="{x(px):.1f}" x2="{x(px):.1f}" y1="{y(low):.1f}" y2="{y(high):.1f}" class="range {css}"/>')
            parts.append(f'<circle cx="{x(px):.1f}" cy="{y(py):.1f}" r="{4.5 if s.get("bold") else 3}" class="dot {css}">'
                         f"<title>{escape(tip)}</title></circle>")
        ends.append((x(points[-1][0]), y(points[-1][1]), s))
    places = spread_out([e[1] for e in ends], 14, TOP + 6, height - BOTTOM)
    for (end_x, end_y, s), place in zip(ends, places):
        css = s["css"] + (" bold" if s.get("bold") else "")
        at = WIDTH - RIGHT + 14
        parts.append(f'<line x1="{end_x + 5:.1f}" y1="{end_y:.1f}" x2="{at - 3}" y2="{place:.1f}" class="leader {s["css"]}"/>')
        parts.append(text_at(at, place + 4, s.get("label", s["name"]), css=f"label {css}"))
    return svg(parts, title, height)


def bars(rows, title, unit, width=WIDTH, left=190):
    """rows: (name, css, [(value, part css, tip)], marks [(value, name)]) as horizontal bars, parts stacked; marks are ticks on the bar."""
    if not rows:
        return ""
    step = 34 if any(marks for *_, marks in rows) else 26
    height = 24 + step * len(rows)
    most = max(max(sum(v for v, *_ in parts), *[m for m, _ in marks], 0) for _, _, parts, marks in rows) or 1
    scale = (width - left - 76) / most
    out = []
    for i, (name, css, parts, marks) in enumerate(rows):
        top, at = 8 + i * step, float(left)
        out.append(text_at(left - 8, top + 13, name, "end", f"label {css}"))
        for value, part, tip in parts:
            out.append(f'<rect x="{at:.1f}" y="{top}" width="{max(0.5, value * scale):.1f}" height="17" class="bar {part}">'
                       f"<title>{escape(tip)}</title></rect>")
            at += value * scale
        out.append(text_at(at + 6, top + 13, si(sum(v for v, *_ in parts)) + unit, css="tick"))
        for value, words in marks:
            x = left + value * scale
            out.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{top - 3}" y2="{top + 20}" class="mark"><title>{escape(words)}</title></line>')
    return svg(out, title, height, width)
