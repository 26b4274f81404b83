"""The report: JSON lines of pados-bench and bench/peers.py in, one stand-alone HTML page out.

    python bench/report.py FOLDER PAGE.html     every *.jsonl of FOLDER
    python bench/report.py --about              one JSON line: this machine, the versions of what is compared
    python bench/report.py --slug               this machine's name in bench/results/
    python bench/report.py --text FOLDER        the tables, for a terminal

A line is one case in one round. Lines that differ in nothing but their round are one point: the median of their queries/s, with
the lowest and highest round drawn as a thin bar.
"""
import glob
import html
import json
import os
import platform
import re
import statistics
import subprocess
import sys

import cases
import plot

MAIN_BATCH = 1024
STAGES = ("coarse", "scan", "refine", "plan")
FAMILY = {"hnswlib": "graph", "faiss-hnsw": "graph", "usearch": "graph", "svs": "graph", "faiss-ivf": "lists",
          "faiss-ivfsq8": "lists", "faiss-ivfpq": "lists", "scann": "scann"}
# The instruction that each of Pados's kernels lives by.
ISA_OF_CEILING = {"portable": "int8 portable", "avx2": "int8 avx2", "avx512": "int8 vnni", "amx": "int8 amx"}


# ------------------------------------------------------------------------------------------------------- this machine ---


def uarch(family, model):
    """What people call a processor whose name says little (in a virtual machine it often does)."""
    if family == 25:
        return "zen3" if model < 0x10 or 0x20 <= model < 0x60 else "zen4"
    if family == 26:
        return "zen5"
    if family == 6:
        return {0x55: "skylake-x", 0x6A: "icelake", 0x8F: "sapphire-rapids", 0xCF: "emerald-rapids", 0xAD: "granite-rapids"}.get(model)
    return "zen2" if family == 23 and model >= 0x30 else None


def cpu():
    fields = {}
    try:
        with open("/proc/cpuinfo") as file:
            for line in file:
                name, _, value = line.partition(":")
                fields.setdefault(name.strip(), value.strip())
    except OSError:
        pass
    name = re.sub(r"\((R|TM)\)|CPU|Processor|@.*|\d+-Core", "", fields.get("model name", platform.machine()))
    kind = uarch(int(fields.get("cpu family", 0) or 0), int(fields.get("model", 0) or 0))
    flags = fields.get("flags", "").split()
    shown = [f for f in ("avx2", "avx512bw", "avx512_vnni", "avx512vbmi", "amx_int8") if f in flags]
    return " ".join(name.split()), kind, os.cpu_count(), shown


def slug():
    name, kind, cores, _ = cpu()
    return re.sub(r"[^a-z0-9]+", "-", f"{name} {kind or ''} {cores}c".lower()).strip("-")


def first_line(command):
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=20).stdout.splitlines()[0]
    except (OSError, IndexError, subprocess.TimeoutExpired):
        return ""


def about():
    import importlib.metadata

    name, kind, cores, flags = cpu()
    with open("/proc/meminfo") as file:
        memory = int(file.readline().split()[1]) / 2**20
    here = os.path.dirname(os.path.abspath(__file__))
    versions = {}
    for package in ("numpy", "faiss-cpu", "hnswlib", "scann", "usearch", "scalable-vs"):
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return {"system": "machine", "what": "about", "cpu": name + (f" ({kind})" if kind else ""), "processors": cores,
            "instructions": " ".join(flags), "memory_gib": round(memory, 1), "kernel": platform.release(),
            "compiler": first_line(["cc", "--version"]), "python": platform.python_version(),
            "pados": first_line(["git", "-C", here, "describe", "--always", "--dirty"]), "versions": versions}


# ------------------------------------------------------------------------------------------------------------ points ---


class Point:
    """The rounds of one case."""

    def __init__(self, lines):
        self.__dict__.update(lines[-1])
        for name in ("qps", "p50_us", "p99_us", "coarse_us", "scan_us", "refine_us"):
            values = [line[name] for line in lines if name in line]
            setattr(self, name, statistics.median(values) if values else None)
        rounds = [line["qps"] for line in lines]
        self.low, self.high, self.rounds = min(rounds), max(rounds), len(rounds)
        self.target, self.spread, self.tie = (lines[-1].get(name) for name in ("recall_target", "spread", "tie"))
        self.quality = lines[-1].get("fused_recall", lines[-1].get("recall"))
        self.ours = self.system.startswith("pados")
        self.tip = (f"{self.system}: {self.quality:.4f} at {self.qps:,.0f} queries/s ({self.low:,.0f} to {self.high:,.0f} in "
                    f"{self.rounds} rounds), batch {self.batch}, {self.setting}")


def read(folder):
    groups, machine, ceilings = {}, {}, {}
    for path in sorted(glob.glob(os.path.join(folder, "*.jsonl"))):
        with open(path) as file:
            for line in map(json.loads, file):
                if line["system"] == "machine" and line["what"] == "about":
                    machine = line
                elif line["system"] == "machine":
                    key = (line["what"], line["threads"])
                    ceilings[key] = max(ceilings.get(key, 0), line["value"])
                elif "round" in line:
                    key = tuple(line.get(name) for name in ("system", "dataset", "rows", "metric", "k", "batch", "threads", "isa",
                                                            "code", "refine", "recall_target", "spread", "tie"))
                    key += (os.path.basename(path), line["setting"] if "recall_target" not in line else "")
                    groups.setdefault(key, []).append(line)
    return [Point(lines) for lines in groups.values()], machine, ceilings


def main_isa(points):
    """The instruction set that Pados chose itself: the one it was measured with most."""
    isas = [p.isa for p in points if p.ours]
    return max(set(isas), key=isas.count) if isas else ""


def css_of(system):
    return "pados" if system.startswith("pados") else FAMILY.get(system, "other")


def subjects(points):
    """(dataset, metric) with peers or not, in the order of the files."""
    return list(dict.fromkeys((p.dataset, p.metric) for p in points))


def usual(points, isa, **wanted):
    """Points of the usual machine setting: one thread, Pados with its own choice of instructions."""
    return [p for p in points if p.threads == 1 and (not p.ours or p.isa == isa)
            and all(getattr(p, name, None) == value for name, value in wanted.items())]


# ------------------------------------------------------------------------------------------------------------ charts ---


def by_system(points):
    systems = {}
    for p in points:
        systems.setdefault(p.system, []).append(p)
    return sorted(systems.items(), key=lambda item: (item[0] != "pados", item[0]))


def curves(points, x, x_of):
    return [{"name": name, "label": name.replace("pados-overfetch-", "pados, fetch "), "css": css_of(name),
             "bold": name == "pados", "dashed": name.startswith("pados-"),
             "points": [(x_of(p), p.qps, p.low, p.high, p.tip) for p in some]} for name, some in points]


def recall_chart(points, isa, subject):
    some = usual(points, isa, dataset=subject[0], metric=subject[1], batch=MAIN_BATCH, spread=None)
    return plot.lines(curves(by_system(some), "recall", lambda p: p.quality), "recall@10", "queries/s, one thread",
                      f"recall against throughput, {subject[0]} {subject[1]}", x_kind="recall")


def fused_charts(points, isa, subject):
    out = []
    fused = usual(points, isa, dataset=subject[0], metric=subject[1])
    fused = [p for p in fused if p.spread is not None and (p.batch == MAIN_BATCH or p.system != "pados")
             and p.system != "pados-equal-probes"]
    for spread in sorted({p.spread for p in fused}):
        some = [p for p in fused if p.spread == spread]
        chart = plot.lines(curves(by_system(some), "fused", lambda p: p.quality), "recall@10 of the fused score",
                           "queries/s, one thread", f"fused recall, spread {spread:g}", x_kind="recall")
        out.append((f"spread {spread:.1f}", chart))
    return out


def batch_chart(points, isa, subject):
    some = usual(points, isa, dataset=subject[0], metric=subject[1], spread=None, target=0.95)
    if len({p.batch for p in some}) < 2:
        return ""
    return plot.lines(curves(by_system(some), "batch", lambda p: p.batch), "queries in a batch", "queries/s, one thread",
                      "batch size against throughput", x_ticks=sorted({p.batch for p in some}), x_text="{:,}".format)


def isa_chart(points):
    some = [p for p in points if p.system == "pados" and p.threads == 1 and p.spread is None and p.target == 0.95]
    best = None
    for subject in subjects(some):
        for batch in (MAIN_BATCH, 64):
            here = [p for p in some if (p.dataset, p.metric, p.batch) == (*subject, batch)]
            if len({p.isa for p in here}) > 1 and (best is None or len(here) > len(best)):
                best = here
    if not best:
        return "", ""
    rows = [(p.isa, "pados", [(p.qps, "pados", p.tip)], []) for p in sorted(best, key=lambda p: -p.qps)]
    return plot.bars(rows, "instruction sets", " q/s"), f"{best[0].dataset}, batch {best[0].batch}, recall 0.95"


def thread_rows(points, isa):
    """(subject, batch, system, qps on one, on several, threads, ratio)"""
    out = []
    for p in points:
        if p.threads > 1 and p.spread is None and p.target == 0.95 and (not p.ours or p.isa == isa):
            one = [q for q in points if q.threads == 1 and all(getattr(q, n) == getattr(p, n) for n in (
                "system", "dataset", "metric", "batch", "isa", "target", "spread"))]
            if one:
                out.append((p.dataset, p.batch, p.system, one[0].qps, p.qps, p.threads, p.qps / one[0].qps))
    return out


def stage_chart(points, isa, ceilings):
    """Stage times of Pados, and what the counted operations and bytes would take at the measured ceilings."""
    rows = []
    peak = ceilings.get((ISA_OF_CEILING.get(isa), 1)) or max(
        [v for (what, n), v in ceilings.items() if what.startswith("int8") and n == 1], default=0)
    reading = ceilings.get(("read memory", 1), 0)
    for p in points:
        if (p.system != "pados" or p.threads != 1 or p.isa != isa or p.batch != MAIN_BATCH or p.target != 0.95 or not p.scan_us):
            continue
        name = f"{p.dataset}{'' if p.metric == 'l2' else ' ' + p.metric}" + (f", spread {p.spread:.1f}" if p.spread is not None else "")
        parts = [(getattr(p, f"{stage}_us") or 0, f"stage-{stage}", f"{stage} {getattr(p, f'{stage}_us') or 0:.2f} us a query")
                 for stage in STAGES]
        marks = []
        if peak:
            least = (p.rows_scanned + p.nlist) * p.dim / (peak * 1e3)
            marks.append((least, f"{least:.2f} us: the multiply-adds of scan and coarse at the measured peak, {peak:.0f} G/s"))
        if reading:
            least = min(p.rows_scanned, p.rows / p.batch) * (p.dim + 8) / (reading * 1e3)
            marks.append((least, f"{least:.2f} us: the codes of a batch's lists read once at {reading:.1f} GB/s"))
        rows.append((name, "", parts, marks))
    return plot.bars(rows, "stages", " us", left=230)


# ------------------------------------------------------------------------------------------------------------ tables ---


def ratio_rows(points, isa):
    """For each data set, target and batch: Pados, hnswlib and the best other peer, on one thread."""
    rows = []
    some = usual(points, isa, spread=None)
    keys = sorted({(p.dataset, p.metric, p.target, p.batch) for p in some if p.system == "pados"})
    for key in keys:
        here = [p for p in some if (p.dataset, p.metric, p.target, p.batch) == key]
        ours = next(p for p in here if p.system == "pados")
        graph = next((p for p in here if p.system == "hnswlib" and p.reached), None)
        others = [p for p in here if not p.ours and p.system != "hnswlib" and p.reached]
        best = max(others, key=lambda p: p.qps, default=None)
        rows.append([f"{key[0]} {key[1]}", f"{key[2]:g}", f"{key[3]:,}", f"{ours.quality:.4f}{'' if ours.reached else ' (missed)'}", f"{ours.qps:,.0f}",
                     f"{graph.qps:,.0f}" if graph else "-", f"{ours.qps / graph.qps:.2f}" if graph else "-",
                     f"{best.qps:,.0f}" if best else "-", best.system if best else "-",
                     f"{ours.qps / best.qps:.2f}" if best else "-"])
    return ["data", "recall", "batch", "Pados's", "queries/s", "hnswlib", "x", "best other", "", "x"], rows


def fused_rows(points, isa):
    rows = []
    fused = [p for p in usual(points, isa) if p.spread is not None]
    for key in sorted({(p.dataset, p.metric, p.spread) for p in fused}):
        here = [p for p in fused if (p.dataset, p.metric, p.spread) == key]
        ours = next((p for p in here if p.system == "pados" and p.target == 0.95 and p.batch == MAIN_BATCH), None)
        if not ours:
            continue
        plain = next((p for p in usual(points, isa, dataset=key[0], metric=key[1], spread=None, batch=MAIN_BATCH, target=0.95)
                      if p.system == "pados"), None)
        equal = next((p for p in here if p.system == "pados-equal-probes" and p.batch == MAIN_BATCH), None)
        tried = [p for p in here if not p.ours and p.target == 0.95]
        others = [p for p in tried if p.reached]
        best = max(others, key=lambda p: p.qps, default=None)
        rows.append([f"{key[0]} {key[1]}", f"{key[2]:.1f}", f"{ours.quality:.4f}", f"{ours.qps:,.0f}",
                     f"{100 * ours.rows_scanned / ours.rows:.2f}%", f"{equal.qps / plain.qps:.2f}" if equal and plain else "-",
                     f"{best.qps:,.0f}" if best else "none reaches it" if tried else "-", f"{best.system}, fetch {best.fetch}" if best else "",
                     f"{ours.qps / best.qps:.1f}" if best else "-"])
    return ["data", "spread", "recall", "queries/s", "rows scanned", "equal probes / similarity", "best peer", "", "x"], rows


def promise_rows(points, isa):
    rows = []
    for p in usual(points, isa, batch=MAIN_BATCH):
        if p.system == "pados" and p.target:
            missed = p.target - p.quality
            rows.append([cases.label(p), "similarity" if p.spread is None else f"spread {p.spread:.1f}", f"{p.target:g}",
                         f"{p.quality:.4f}", f"{p.queries:,}", "kept" if missed <= 0.0075 else f"missed by {missed:.4f}"])
    return ["data", "score", "promised", "measured", "queries", "within 0.0075"], rows


def build_rows(points, isa):
    rows = {}
    for p in usual(points, isa, spread=None):
        if p.system == "pados" or not p.ours:
            rows[(p.dataset, p.metric, p.system)] = [f"{p.dataset} {p.metric}", p.system, f"{p.build_s:,.1f}", f"{p.build_threads}",
                                                     f"{p.bytes_per_row:,.0f}", p.setting if not p.ours else f"nlist {p.nlist}, {p.code}, refine {p.refine}"]
    return ["data", "system", "build, s", "threads", "bytes a row", "setting"], [rows[k] for k in sorted(rows)]


def table(head, rows):
    if not rows:
        return ""
    number = [all(re.fullmatch(r"[-0-9.,%]*", str(r[i])) for r in rows) for i in range(len(head))]
    cells = lambda tag, row: "".join(f"<{tag}{' class=n' if n else ''}>{html.escape(str(c))}</{tag}>" for c, n in zip(row, number))
    return f"<div class=scroll><table><tr>{cells('th', head)}</tr>" + "".join(f"<tr>{cells('td', r)}</tr>" for r in rows) + "</table></div>"


def text_table(head, rows):
    widths = [max(len(str(r[i])) for r in [head, *rows]) for i in range(len(head))]
    return "\n".join("  ".join(str(c).ljust(w) if i in (0,) else str(c).rjust(w) for i, (c, w) in enumerate(zip(row, widths)))
                     for row in [head, *rows])


# -------------------------------------------------------------------------------------------------------------- page ---


def titled(title, body):
    return f"<h3>{html.escape(title)}</h3>{body}" if body else ""


def figure(chart, title, note="", key=""):
    return f"<figure><figcaption><b>{html.escape(title)}</b> {html.escape(note)} {key}</figcaption>{chart}</figure>" if chart else ""


def headline(points, isa):
    """The largest lead over hnswlib at recall 0.95 in large batches, in one sentence."""
    leads = []
    for p in usual(points, isa, spread=None, target=0.95):
        if p.system == "pados" and p.batch >= MAIN_BATCH and p.reached:
            graph = next((q for q in usual(points, isa, spread=None, target=0.95, dataset=p.dataset, metric=p.metric, batch=p.batch)
                          if q.system == "hnswlib"), None)
            if graph:
                leads.append((p.qps / graph.qps, p))
    if not leads:
        return ""
    lead, p = max(leads, key=lambda pair: pair[0])
    return f"{lead:.1f} times hnswlib's queries a second at recall {p.target:g} ({p.dataset}, {p.metric}, batch {p.batch:,}, one thread)"


def page(everything, machine, ceilings):
    isa = main_isa(everything)
    points = cases.compared(everything)
    parts = []
    for subject in subjects(points):
        name = f"{subject[0]}, {subject[1]}"
        charts = figure(recall_chart(points, isa, subject), "Recall against throughput", f"batch {MAIN_BATCH}")
        charts += figure(batch_chart(points, isa, subject), "Batch size against throughput", "recall 0.95")
        for words, chart in fused_charts(points, isa, subject):
            charts += figure(chart, f"Context in the score, {words}", "4 attributes, recall of the exact fused top 10; peers over-fetch and re-rank")
        rows = next(p.rows for p in points if (p.dataset, p.metric) == subject)
        dim = next(p.dim for p in points if (p.dataset, p.metric) == subject)
        parts.append(f"<h2>{html.escape(name)} <small>{rows:,} rows of {dim} dimensions</small></h2><div class=grid2>{charts}</div>")
    chart, note = isa_chart(points)
    grown, growth = cases.rows_chart(everything, isa, css_of)
    weighed, weighing = cases.tie_chart(everything)
    general = figure(weighed, "Rows that weights make it look at", weighing)
    general += figure(grown, "Rows against cost", f"recall 0.95, batch 1,024, one thread; {growth}")
    general += figure(chart, "Instruction sets", note)
    general += figure(stage_chart(points, isa, ceilings), "Where Pados's time goes",
                      "microseconds a query at recall 0.95, batch 1,024. Ticks: the same work at the machine's measured ceilings (hover)",
                      "".join(f'<span class="key stage-{stage}">{stage}</span>' for stage in STAGES))
    threads = [[f"{d}, batch {b:,}", s, f"{one:,.0f}", f"{more:,.0f}", n, f"{r:.2f}"] for d, b, s, one, more, n, r in thread_rows(points, isa)]
    rows = [[what, n, f"{v:,.1f} {'GB/s' if what.startswith('read') else 'G multiply-adds/s'}"] for (what, n), v in ceilings.items()]
    facts = [[k.replace("_", " "), v] for k, v in machine.items() if k not in ("system", "what", "versions")]
    facts += list(machine.get("versions", {}).items())
    peers = sorted({(p.system, p.about) for p in points if not p.ours})
    with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "report.css")) as file:
        css = file.read()
    return f"""<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content="width=device-width">
<title>Pados: measurements</title><style>{css}</style><main>
<h1>Pados, measured</h1><p class=lead>{html.escape(headline(points, isa))}</p>
<p>Every system reads the same rows and answers the same queries on the same processors, in turns, in one run; a point is the median
of its rounds, a thin bar their range. A peer's parameters are tuned on the very queries that are timed; Pados is asked for a recall
and keeps its own promise from queries that are not measured. Pados here: {html.escape(isa)}.</p>
<h2>In numbers <small>one thread</small></h2>{table(*ratio_rows(points, isa))}
{titled("Context in the score: recall 0.95 of the exact fused top 10", table(*fused_rows(points, isa)))}
{"".join(parts)}<h2>The whole</h2><div class=grid2>{general}</div>
{titled("Rows looked at for fused recall 0.95", table(*cases.tie_rows(everything)))}
{titled("Rows against cost", table(*cases.rows_rows(everything, isa)))}
{titled("Instruction sets", table(*cases.isa_rows(points)))}
{titled("More threads", table(["data", "system", "1 thread", "more", "threads", "x"], threads))}
{titled("Promised recall", table(*promise_rows(everything, isa)))}
{titled("Building and memory", table(*build_rows(points, isa)))}
<h2>The machine</h2><div class=grid2><div>{table(["", ""], facts)}</div><div>{table(["ceiling", "threads", ""], rows)}</div></div>
{titled("Peers", table(["system", "what it is"], peers))}</main></html>"""


def main():
    if sys.argv[1:2] == ["--slug"]:
        print(slug())
    elif sys.argv[1:2] == ["--about"]:
        print(json.dumps(about()))
    elif len(sys.argv) == 3 and sys.argv[1] == "--text":
        everything, _, _ = read(sys.argv[2])
        isa, points = main_isa(everything), cases.compared(everything)
        for head, rows in (ratio_rows(points, isa), fused_rows(points, isa), cases.tie_rows(everything), cases.rows_rows(everything, isa),
                           cases.isa_rows(points), promise_rows(everything, isa)):
            if rows:
                print(text_table(head, rows) + "\n")
    elif len(sys.argv) == 3:
        points, machine, ceilings = read(sys.argv[1])
        if not points:
            sys.exit(f"{sys.argv[1]}: no measurements")
        with open(sys.argv[2], "w") as file:
            file.write(page(points, machine, ceilings))
        print(f"{sys.argv[2]}: {len(points)} points")
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main()
