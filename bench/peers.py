"""One peer, in a process of its own: built from what `pados-bench --export` wrote, tuned, and timed in turns.

    python bench/peers.py PEER FOLDER [options]          PEER: hnswlib faiss-ivf faiss-ivfsq8 faiss-ivfpq faiss-hnsw scann
                                                               usearch svs

The rules, the same for every peer:
- It reads the rows, queries and exact answers that Pados is measured with, builds on all processors (--build-threads) and
  searches on --threads, pinned to the first processors.
- A few build and search choices that its users would try are tried; at each recall target the fastest one is kept, so a peer
  may answer different targets from different indexes. The choice is the record's "setting".
- Its search parameter (nprobe, ef, leaves) is the smallest that reaches the target on the very queries that are timed, found by
  bisection on the first TUNING_QUERIES of them and held to all: a peer is tuned on the test, Pados is not.
- Where a peer re-orders its best candidates, depths are tried from the least up, until one more is slower at every target.
- Batches are as Pados has them: queries in rotation, every batch full, timed for --seconds a round.
- Where the score has context weights, a peer over-fetches: the smallest fetch of FETCHES and the smallest parameter with which
  the re-ranked answers reach the target. Re-ranking is vectorised numpy over the similarities that the peer returned, and is
  timed with the search. What a fetch can reach at best is known from the exact ranks of the right answers, so that no time goes
  into those that cannot; if even the largest misses, that is measured and said ("reached": false).

Graphs, ScaNN's index and FAISS's centroids are kept in --cache with the time they took: building is most of a run. What comes
from there counts with the time of that build.
"""
import argparse
import hashlib
import json
import os
import shutil
import sys
import time

FETCHES = (20, 50, 100, 200, 500, 1000, 2000, 5000, 10000)
TUNING_QUERIES = 1000  # bisection looks at so many; the value found is held to all of them
RANKED_QUERIES = 500  # so many are ranked against all rows, to know what a fetch can reach


def arguments():
    p = argparse.ArgumentParser(description="One peer of Pados, tuned and timed in turns")
    p.add_argument("peer")
    p.add_argument("folder", help="what pados-bench --export wrote")
    p.add_argument("--batch", default="1024", help="comma list")
    p.add_argument("--recall", default="0.9,0.95,0.99", help="comma list")
    p.add_argument("--fused-recall", default="", help="comma list; over-fetches and re-ranks where the folder has contexts")
    p.add_argument("--threads", type=int, default=1)
    p.add_argument("--build-threads", type=int, default=os.cpu_count())
    p.add_argument("--seconds", type=float, default=1.0)
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--turns", action="store_true", help="each round waits for a line on stdin")
    p.add_argument("--choices", default="", help="comma list of build choices to try, by number; default all")
    p.add_argument("--cache", default="", help="folder for what took long to build")
    p.add_argument("--json", default="")
    return p.parse_args()


def pin(threads):
    """The environment decides before any library is loaded; the processors are the first ones, as Pados has them."""
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = str(threads)
    os.environ["OMP_WAIT_POLICY"] = "passive"


ALL_PROCESSORS = sorted(os.sched_getaffinity(0))
OPTIONS = arguments()
pin(OPTIONS.build_threads)
import numpy as np  # noqa: E402  (after pin)

from adapters import PEERS  # noqa: E402


class Data:
    def __init__(self, folder):
        self.folder = folder
        with open(os.path.join(folder, "meta.json")) as file:
            meta = json.load(file)
        self.name, self.metric, self.k = meta["dataset"], meta["metric"], meta["k"]
        self.spreads, self.attributes, self.tie = meta["spreads"], meta["attributes"], meta["tie"]
        self.weight_at = np.array(meta["weight_at"], dtype=np.int64)
        self.base, self.queries = self.fbin("base.fbin"), np.array(self.fbin("query.fbin"))
        self.truth = np.load(os.path.join(folder, "truth.npy"))
        self.rows, self.dim = self.base.shape
        self.threads, self.build_threads = OPTIONS.threads, OPTIONS.build_threads
        self.cache = os.path.abspath(OPTIONS.cache) if OPTIONS.cache else ""
        if self.cache:
            os.makedirs(self.cache, exist_ok=True)
        self.squares = None
        if self.spreads:
            self.bytes = np.ascontiguousarray(np.load(os.path.join(folder, "bytes.npy")).T)  # a row a column

    def fbin(self, name):
        path = os.path.join(self.folder, name)
        rows, dim = np.fromfile(path, dtype=np.uint32, count=2)
        return np.memmap(path, dtype=np.float32, mode="r", offset=8, shape=(int(rows), int(dim)))

    def context(self, i):
        load = lambda name: np.load(os.path.join(self.folder, f"{name}_{i}.npy"))
        return load("weights"), load("fused")

    def within(self, i):
        """The share of context i's right answers that the exact most similar F rows hold, for each F of FETCHES."""
        path = os.path.join(self.folder, f"within_{i}.npy")
        if not os.path.exists(path):
            truth = np.load(os.path.join(self.folder, f"fused_{i}.npy"))[:RANKED_QUERIES]
            queries, at_once = self.queries[:len(truth)], max(1, 20_000_000 // self.rows)
            ranks = [self.ranks(queries[at:at + at_once], truth[at:at + at_once]) for at in range(0, len(truth), at_once)]
            ranks = np.concatenate(ranks)[truth >= 0]
            np.save(path, np.array([(ranks < fetch).mean() for fetch in FETCHES]))
        return np.load(path)

    def ranks(self, queries, rows):
        """How many rows are more similar to each query than each of rows[query]: one product with all rows."""
        if self.squares is None and self.l2:
            self.squares = np.einsum("ij,ij->i", self.base, self.base)
        scores = queries @ self.base.T
        if self.l2:
            scores = 2 * scores - self.squares
        mine = np.take_along_axis(scores, np.maximum(rows, 0), axis=1)
        return np.stack([(scores > mine[:, j:j + 1]).sum(axis=1) for j in range(rows.shape[1])], axis=1)

    def digest(self):
        h = hashlib.sha256(np.ascontiguousarray(self.base[:: max(1, self.rows // 1000)]).tobytes())
        h.update(f"{self.rows} {self.metric}".encode())
        return h.hexdigest()[:16]

    @property
    def l2(self):
        return self.metric == "l2"


# -------------------------------------------------------------------------------------------------- building, tuning ---


def anonymous_bytes():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) << 10 for line in file if line.startswith("RssAnon"))


def text(choice):
    return " ".join(f"{name} {value}" for name, value in choice.items())


class Built:
    """One index: a peer built by one choice."""

    def __init__(self, make, data, number):
        self.peer = make(data)
        self.choice = self.peer.choices()[number]
        self.threads(OPTIONS.build_threads)
        self.cached = False  # built in an earlier run, when build_s was measured, or trained in one
        before, path = anonymous_bytes(), self.place(data, make.__name__)
        start = time.perf_counter()
        if path and os.path.exists(path + ".json"):
            self.peer.load(self.choice, path)
            self.cached = True
            with open(path + ".json") as file:
                self.build_s = json.load(file)["build_s"]
        else:
            if path:
                shutil.rmtree(path, ignore_errors=True)
            self.peer.build(self.choice)
            self.build_s = time.perf_counter() - start
            if getattr(self.peer, "trained_s", 0):  # centroids of an earlier run
                self.build_s += self.peer.trained_s
                self.cached = True
            if path:
                self.peer.save(path)
                with open(path + ".json", "w") as file:
                    json.dump({"build_s": self.build_s, "about": self.peer.about}, file)
        self.bytes_per_row = (anonymous_bytes() - before) / data.rows
        self.threads(OPTIONS.threads)

    def threads(self, n):
        if hasattr(self.peer, "threads"):
            self.peer.threads(n)

    def place(self, data, name):
        if not data.cache or not hasattr(self.peer, "load"):
            return None
        key = hashlib.sha256(f"{self.peer.about} {text(self.choice)} {data.digest()}".encode()).hexdigest()[:16]
        return os.path.join(data.cache, f"{name}-{key}")


class Point:
    """An index with its parameters set: what is timed at one target."""

    def __init__(self, built, choice, value, fetch):
        self.built, self.choice, self.value, self.fetch = built, choice, value, fetch
        self.context = None

    def set(self):
        self.built.peer.set(self.choice, self.value, self.fetch)

    def answer(self, data, queries, numbers):
        """Row numbers of the best k: [len(queries)][k]. numbers: which queries these are."""
        ids, scores = self.built.peer.search(queries, self.fetch)
        if self.context is None:
            return ids
        weights = self.context[0][numbers]
        scores = np.where(ids >= 0, scores, -np.inf).astype(np.float32)
        ids = np.maximum(ids, 0)
        for column, at in zip(data.bytes, data.weight_at):
            scores += np.take_along_axis(weights, at + column[ids], axis=1)
        best = np.argpartition(scores, -data.k, axis=1)[:, -data.k:]
        return np.take_along_axis(ids, best, axis=1)

    def setting(self):
        parts = [text(self.built.choice), text(self.choice), f"{self.built.peer.parameter} {self.value}"]
        if self.context is not None:
            parts.append(f"fetch {self.fetch}")
        return " ".join(part for part in parts if part)


def recall_of(truth, ids):
    hits = (truth[:, :, None] == ids[:, None, :]).any(axis=2) & (truth >= 0)
    return hits.sum() / max(1, (truth >= 0).sum())


def measure(data, point, count, batch=1024):
    """Recall and queries/s over the first count queries."""
    truth = data.truth if point.context is None else point.context[1]
    batch = min(batch, max(1, 4_000_000 // point.fetch))
    got, took = [], 0.0
    point.set()
    for at in range(0, count, batch):
        numbers = np.arange(at, min(at + batch, count))
        queries = data.queries[numbers]
        start = time.perf_counter()
        ids = point.answer(data, queries, numbers)
        took += time.perf_counter() - start
        got.append(recall_of(truth[numbers], ids) * len(numbers))
    return sum(got) / count, count / took


def smallest(data, point, target, count, seen):
    """Sets the smallest parameter that reaches target, within 3%; False, with the largest one, where none does."""
    low, high = point.built.peer.range(point.fetch)

    def reaches(value):
        if value not in seen:
            point.value = value
            seen[value] = measure(data, point, count)[0]
        return seen[value] >= target

    value, below = low, low - 1
    while not reaches(value):
        gain = seen[value] - seen.get(below, -1)
        # Each doubling gains less than the one before: a gain of an eighth of what is missing cannot add up to it.
        flat = gain < 1e-4 or (seen[value] > target / 2 and gain < (target - seen[value]) / 8)
        if value >= high or (value >= 4 * low and flat and value > 64):
            point.value = value
            return False
        below, value = value, min(high, max(value + 1, value * 2))
    while value - below > max(1, 0.03 * value):
        middle = (value + below) // 2
        if reaches(middle):
            value = middle
        else:
            below = middle
    point.value = value
    return True


def settle(data, point, target, count):
    """Holds a value found on some queries to all of them; returns its recall and speed."""
    high = point.built.peer.range(point.fetch)[1]
    while True:
        recall, qps = measure(data, point, count)
        if recall >= target or point.value >= high:
            return recall, qps
        point.value = min(high, point.value + max(1, round(0.03 * point.value)))


def tune(data, make, targets):
    """The fastest point at each target over all choices."""
    best = {}
    targets = sorted(targets)
    numbers = [int(n) for n in OPTIONS.choices.split(",")] if OPTIONS.choices else range(len(make(data).choices()))
    total, few = len(data.queries), min(TUNING_QUERIES, len(data.queries))
    for number in numbers:
        built = Built(make, data, number)
        say(f"{text(built.choice)}: built in {built.build_s:.1f} s{' wholly or partly by an earlier run' if built.cached else ''}")
        fastest = {}  # of this index, by target
        for choice in built.peer.tries():
            seen, faster = {}, False
            for target in targets:
                point = Point(built, choice, 0, data.k)
                reached = smallest(data, point, target, few, seen)
                recall, qps = settle(data, point, target, total) if reached else measure(data, point, few)
                say(f"  {point.setting()}: recall {recall:.4f}, {qps:.0f} queries/s")
                key = (recall >= target, qps if recall >= target else recall)
                if target not in fastest or key > fastest[target]:
                    fastest[target], faster = key, True
                if target not in best or key > best[target][0]:
                    best[target] = (key, point, recall)
            if not faster:
                break  # tries go from the least work to the most
    return {target: (point, recall) for target, (_, point, recall) in best.items()}


def tune_fused(data, built, choice, i, target):
    """The smallest fetch that reaches target once re-ranked, and the smallest parameter for it, in context i."""
    fetches = [fetch for fetch in FETCHES if fetch <= data.rows]
    within = data.within(i)
    able = [fetch for fetch, share in zip(fetches, within) if share >= target]
    for fetch in able or fetches[-1:]:
        count = min(len(data.queries), 500 if fetch <= 1000 else 200)
        point = Point(built, choice, 0, fetch)
        point.context = data.context(i)
        if able and smallest(data, point, target, count, {}):
            recall, qps = measure(data, point, count)
            say(f"  {point.setting()}: fused recall {recall:.4f}, {qps:.0f} queries/s")
            return point, recall, count
        say(f"  fetch {fetch}: not enough (the exact nearest {fetch} would give {within[fetches.index(fetch)]:.4f})")
    # Out of reach: what it gives with as many candidates as ought to hold the largest fetch.
    low, high = built.peer.range(fetch)
    point.value = low if low > 1 else min(high, 16 + 4 * fetch * high // data.rows)
    recall, _ = measure(data, point, count)
    return point, recall, count


# ------------------------------------------------------------------------------------------------------------ timing ---


def time_point(data, point, batch, start_at, count):
    """Batches in rotation until the seconds are over, after a smaller one that warms: queries/s, p50, p99, next start."""
    point.set()
    times, at, spent = [], start_at, 0.0
    few = np.arange(at, at + min(batch, 256)) % count
    point.answer(data, data.queries[few], few)
    while not times or spent < OPTIONS.seconds:
        numbers = np.arange(at, at + batch) % count
        queries = data.queries[numbers]
        at = (at + batch) % count
        start = time.perf_counter()
        point.answer(data, queries, numbers)
        times.append(time.perf_counter() - start)
        spent += times[-1]
    times.sort()
    return len(times) * batch / spent, 1e6 * times[len(times) // 2], 1e6 * times[len(times) - 1 - len(times) // 100], at


def record(data, name, point, batch, target, recall, spread):
    row = {"system": name, "setting": point.setting(), "about": point.built.peer.about, "dataset": data.name,
           "rows": data.rows, "dim": data.dim, "metric": data.metric, "k": data.k, "batch": batch,
           "threads": OPTIONS.threads, "queries": len(data.queries), "backend": "cpu", "isa": "",
           "build_s": round(point.built.build_s, 2), "build_cached": point.built.cached, "build_threads": OPTIONS.build_threads,
           "bytes_per_row": round(point.built.bytes_per_row, 1)}
    row |= {"recall_target": target, "reached": bool(recall >= target)}
    if spread is None:
        row["recall"] = round(float(recall), 6)
    else:
        row |= {"fused_recall": round(float(recall), 6), "spread": round(spread, 4), "attributes": data.attributes,
                "tie": data.tie, "fetch": point.fetch}
    return row


def say(line):
    print(line, flush=True)


def floats(words):
    return sorted(float(w) for w in words.split(",") if w)


def main():
    if OPTIONS.peer not in PEERS:
        sys.exit(f"{OPTIONS.peer}: not one of {', '.join(PEERS)}")
    data = Data(OPTIONS.folder)
    make = PEERS[OPTIONS.peer]
    try:
        say(f"{OPTIONS.peer}: {make(data).about}")
    except ImportError as missing:
        say(f"{OPTIONS.peer} is left out: {missing}")
        sys.exit(3)
    best = tune(data, make, floats(OPTIONS.recall))
    cases = []  # (record, point, batch, queries)
    for target, (point, recall) in best.items():
        for batch in (int(b) for b in OPTIONS.batch.split(",")):
            cases.append((record(data, OPTIONS.peer, point, batch, target, recall, None), point, batch, len(data.queries)))
    wanted = floats(OPTIONS.fused_recall)
    if wanted and data.spreads:
        base = best[max(t for t in best if t <= 0.951)][0]  # the index that is best at similarity alone
        for i, spread in enumerate(data.spreads):
            for target in wanted:
                say(f"spread {spread:.2f}, fused recall {target}")
                point, recall, count = tune_fused(data, base.built, base.choice, i, target)
                # Above 64 queries peers gain nothing from more: large fetches go out in smaller batches, which take less time.
                batch = min(1024, max(64, 500_000 // point.fetch))
                cases.append((record(data, OPTIONS.peer, point, batch, target, recall, spread), point, batch, count))
    keep = {case[1].built for case in cases}
    say(f"{len(cases)} cases, {len(keep)} indexes kept")
    for thread in os.listdir("/proc/self/task"):
        os.sched_setaffinity(int(thread), ALL_PROCESSORS[:OPTIONS.threads])
    starts = [0] * len(cases)
    for turn in range(1, OPTIONS.rounds + 1):
        if OPTIONS.turns:
            say(f"turn {turn}")
            if not sys.stdin.readline():
                sys.exit(f"{OPTIONS.peer}: stdin ended before round {turn}")
        for c, (row, point, batch, count) in enumerate(cases):
            qps, p50, p99, starts[c] = time_point(data, point, batch, starts[c], count)
            line = row | {"round": turn, "qps": round(qps, 2), "p50_us": round(p50, 2), "p99_us": round(p99, 2)}
            if OPTIONS.json:
                with open(OPTIONS.json, "a") as file:
                    file.write(json.dumps(line) + "\n")
            else:
                say(json.dumps(line))
    say("done")
    # Libraries that keep threads may hang at exit; everything is written.
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
