"""Measurements of Pados alone that answer one question each, as charts and tables of the report: what a row more costs, how many
rows weights make it look at, and what each instruction set is worth."""
import math

import plot

# Data sets that belong to one question; the comparison with peers leaves them out.
BY_ROWS, BY_TIE = "synthetic, by rows", "synthetic, by tie"
BATCH, TARGET = 1024, 0.95


def compared(points):
    return [p for p in points if p.dataset not in (BY_ROWS, BY_TIE)]


def label(p):
    """What sets p's table apart in a list of all of them."""
    return {BY_ROWS: f"{p.rows:,} synthetic rows", BY_TIE: f"synthetic, {tie_name(p.tie or 0)}"}.get(p.dataset, f"{p.dataset} {p.metric}")


def power(pairs):
    """(factor, exponent) of the straight line through the logarithms: y = factor * x ** exponent."""
    xs, ys = [math.log(x) for x, _ in pairs], [math.log(y) for _, y in pairs]
    x, y = sum(xs) / len(xs), sum(ys) / len(ys)
    exponent = sum((a - x) * (b - y) for a, b in zip(xs, ys)) / sum((a - x) ** 2 for a in xs)
    return math.exp(y - exponent * x), exponent


# ------------------------------------------------------------------------------------------------- rows against cost ---


def ours_by_rows(points, isa):
    """Pados on tables of the same law, fewest rows first; from one run in turns where there is one."""
    some = [p for p in points if p.system == "pados" and p.isa == isa and p.threads == 1 and p.batch == BATCH and p.target == TARGET
            and p.spread is None and p.dataset.startswith("synthetic")]
    alone = [p for p in some if p.dataset == BY_ROWS]
    found = {(p.dim, p.rows): p for p in alone or some if p.dataset != BY_TIE}
    dims = [dim for dim, _ in found]
    most = max(dims, key=dims.count, default=0)
    return [found[key] for key in sorted(found) if key[0] == most]


def rows_chart(points, isa, css_of):
    """(chart, what it says)"""
    ours = ours_by_rows(points, isa)
    if len(ours) < 2:
        return "", ""
    series = [{"name": "pados", "css": "pados", "bold": True, "points": cost_of(ours)}]
    peers = {}
    for p in compared(points):
        if (not p.ours and p.threads == 1 and p.batch == BATCH and p.target == TARGET and p.spread is None and p.reached
                and p.dataset.startswith("synthetic") and p.dim == ours[0].dim):
            peers.setdefault(p.system, []).append(p)
    series += [{"name": name, "css": css_of(name), "points": cost_of(some)} for name, some in sorted(peers.items())
               if len({p.rows for p in some}) > 1]
    rows = [p.rows for p in ours]
    factor, exponent = power([(p.rows, 1e6 / p.qps) for p in ours])
    first = 1e6 / ours[0].qps
    guides = [(f"rows to the power of {exponent:.2f}", [(n, factor * n**exponent) for n in rows]),
              ("square root", [(n, first * (n / rows[0]) ** 0.5) for n in rows])]
    chart = plot.lines(series, "rows", "microseconds a query", "rows against cost", x_ticks=rows, guides=guides)
    return chart, f"cost grows as the rows to the power of {exponent:.2f} (fitted), rows looked at to that of {scanned_power(ours):.2f}"


def cost_of(points):
    return [(p.rows, 1e6 / p.qps, 1e6 / p.high, 1e6 / p.low, p.tip) for p in points]


def scanned_power(ours):
    return power([(p.rows, p.rows_scanned) for p in ours])[1]


def rows_rows(points, isa):
    ours = ours_by_rows(points, isa)
    if len(ours) < 2:
        return [], []
    rows = [[f"{p.rows:,}", f"{p.quality:.4f}", f"{p.qps:,.0f}", f"{1e6 / p.qps:.2f}", f"{p.rows_scanned:,.0f}",
             f"{100 * p.rows_scanned / p.rows:.2f}%", f"{p.nlist:,}", f"{p.build_s:,.1f}", f"{p.bytes_per_row:,.0f}"] for p in ours]
    rows.append(["fitted power", "", "", f"{power([(p.rows, 1e6 / p.qps) for p in ours])[1]:.2f}", f"{scanned_power(ours):.2f}", "", "",
                 f"{power([(p.rows, p.build_s) for p in ours])[1]:.2f}", ""])
    return ["rows", "recall", "queries/s", "us a query", "rows looked at", "", "nlist", "build, s", "bytes a row"], rows


# ------------------------------------------------------------------------------------------- rows scanned by spread ---


def tied(points):
    """{tie: points by spread}, and the rows that similarity alone looks at."""
    some = [p for p in points if p.dataset == BY_TIE and p.system == "pados" and p.target == TARGET and p.batch == BATCH]
    ties = {}
    for p in some:
        if p.spread is not None:
            ties.setdefault(p.tie, []).append(p)
    alone = [p for p in some if p.spread is None]
    return {tie: sorted(ties[tie], key=lambda p: p.spread) for tie in sorted(ties)}, alone


def tie_name(tie):
    return "independent" if tie == 0 else f"{100 * tie:.0f}% tied"


def tie_chart(points):
    """(chart, what it shows)"""
    ties, alone = tied(points)
    if not ties:
        return "", ""
    colours = ("pados", "stage-coarse", "stage-refine", "other")
    series = [{"name": f"tie {tie}", "label": tie_name(tie), "css": colours[i % 4], "bold": i == 0,
               "points": [(p.spread, p.rows_scanned, p.rows_scanned, p.rows_scanned,
                           f"spread {p.spread:g}, {tie_name(tie)}: {p.rows_scanned:,.0f} rows ({100 * p.rows_scanned / p.rows:.1f}%), fused recall {p.quality:.4f}")
                          for p in some]} for i, (tie, some) in enumerate(ties.items())]
    spreads = sorted({p.spread for some in ties.values() for p in some})
    if alone:
        level = alone[0].rows_scanned
        series.append({"name": "similarity alone", "css": "other", "dashed": True,
                       "points": [(spread, level, level, level, f"similarity alone: {level:,.0f} rows") for spread in spreads]})
    first = next(iter(ties.values()))[0]
    chart = plot.lines(series, "spread of the weights", "rows looked at a query", "rows scanned for fused recall 0.95, by spread",
                       x_kind="linear", x_ticks=spreads, x_text="{:g}".format)
    return chart, (f"{first.rows:,} rows of {first.dim} dimensions, {first.attributes} attributes, recall 0.95 of the exact fused top 10. "
                   "Independent: an attribute's values know nothing of the lists; tied: with that probability a row has its list's value")


def tie_rows(points):
    ties, alone = tied(points)
    rows = []
    for tie, some in ties.items():
        for p in some:
            rows.append([tie_name(tie), f"{p.spread:g}", f"{p.quality:.4f}", f"{p.rows_scanned:,.0f}", f"{100 * p.rows_scanned / p.rows:.2f}%",
                         f"{p.rows_scanned / alone[0].rows_scanned:.2f}" if alone else "-"])
    return ["attributes", "spread", "fused recall", "rows looked at", "", "x similarity alone"], rows


# -------------------------------------------------------------------------------------------------- instruction sets ---


def isa_rows(points):
    """Every instruction set that was forced beside the chosen one, a column each: queries/s (times hnswlib's)."""
    some = [p for p in compared(points) if p.threads == 1 and p.spread is None and p.target]
    ours = [p for p in some if p.system == "pados"]
    forced = {(p.dataset, p.metric) for p in ours for q in ours if (p.dataset, p.metric) == (q.dataset, q.metric) and p.isa != q.isa}
    isas = sorted({p.isa for p in ours if (p.dataset, p.metric) in forced}, key=lambda isa: -max(p.qps for p in ours if p.isa == isa))
    rows = []
    for dataset, metric, target, batch in sorted({(p.dataset, p.metric, p.target, p.batch) for p in ours if (p.dataset, p.metric) in forced}):
        here = [p for p in some if (p.dataset, p.metric, p.target, p.batch) == (dataset, metric, target, batch)]
        graph = next((p for p in here if p.system == "hnswlib" and p.reached), None)
        row = [f"{dataset} {metric}", f"{target:g}", f"{batch:,}"]
        for isa in isas:
            mine = next((p for p in here if p.system == "pados" and p.isa == isa), None)
            row += [f"{mine.qps:,.0f}" if mine else "-", f"{mine.qps / graph.qps:.2f}" if mine and graph else "-"]
        rows.append(row)
    return ["data", "recall", "batch", *(word for isa in isas for word in (isa, "x hnswlib"))], rows
