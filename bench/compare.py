"""Pados and its peers on one data set, taking turns.

    python bench/compare.py --bench BUILD/bin/pados-bench --json FILE [options] -- PADOS-BENCH ARGUMENTS

Everything is built first, one after another, each in a process of its own: Pados exports its rows, queries, truth and weights,
the peers read them. Then, round by round, each process in turn measures all of its cases while the others wait: a slow minute
of the machine falls on all of them, and the report takes medians over the rounds. --also adds a Pados with other options
(--also "--isa avx2"), on the same rows and truth. --sizes makes one Pados for each number of rows instead, and no peers: ROWS in
the arguments stands for the number. A peer that fails is left out, said so ("LEFT OUT"), and makes the status 4; a Pados that fails ends the run.
"""
import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))


def arguments():
    p = argparse.ArgumentParser(description="Pados and its peers, taking turns on one data set")
    p.add_argument("--bench", required=True, help="pados-bench")
    p.add_argument("--json", required=True, help="one object a line, case and round, appended")
    p.add_argument("--peers", default="", help="comma list; NAME:0,1 tries only those of the peer's choices")
    p.add_argument("--peer-batch", default="", help="batches of the peers, if not Pados's")
    p.add_argument("--batch", default="1024")
    p.add_argument("--recall", default="0.9,0.95,0.99")
    p.add_argument("--fused-recall", default="", help="peers over-fetch and re-rank for these")
    p.add_argument("--similarity-only", default="", help="comma list of peers that are not asked for the fused score")
    p.add_argument("--threads", default="1", help="comma list: each system once for each number")
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--seconds", default="1")
    p.add_argument("--sizes", default="", help="comma list of numbers of rows: one Pados for each, without peers")
    p.add_argument("--also", action="append", default=[], help="options of one more Pados")
    p.add_argument("--cache", default="", help="folder for peers' graphs")
    p.add_argument("--work", default="", help="where the exported rows go; default a temporary folder")
    p.add_argument("pados", nargs="*", help="arguments of pados-bench")
    return p.parse_args()


class Worker:
    """A process that prints `turn N` when it waits for its next turn."""

    def __init__(self, name, command):
        self.name = name
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def until_turn(self):
        """Shows what it prints; True at its next turn, False at its end."""
        for line in self.process.stdout:
            if line.startswith("turn "):
                return True
            print(f"  {self.name:14} {line}", end="", flush=True)
        return False

    def turn(self):
        try:
            self.process.stdin.write("go\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            return False
        return self.until_turn()


def left_out(worker, when):
    """A Pados must not fail; one peer's trouble must not cost the others their measurement."""
    line = f"{worker.name} ended with status {worker.process.returncode} {when}"
    if worker.name.startswith("pados"):
        raise SystemExit(line)
    print(f"LEFT OUT: {line}", flush=True)
    return True


def start(name, command, workers):
    began = time.monotonic()
    print(f"{name}: preparing", flush=True)
    worker = Worker(name, command)
    if worker.until_turn():
        print(f"{name}: ready after {time.monotonic() - began:.0f} s", flush=True)
        workers.append(worker)
        return False
    status = worker.process.wait()
    # 3: its package is not installed, which it has said
    return status != 3 and left_out(worker, f"before its first turn: {' '.join(command)}")


def split_peers(text):
    """`a:0,1,b` is a with choices 0 and 1, and b."""
    peers = []
    for word in text.split(","):
        if word.isdigit() and peers:
            peers[-1][1].append(word)
        elif word:
            name, _, first = word.partition(":")
            peers.append((name, [first] if first else []))
    return peers


def start_sizes(o, workers):
    options = ["--recall", o.recall, "--batch", o.batch, "--threads", o.threads, "--rounds", str(o.rounds), "--seconds", o.seconds]
    for size in o.sizes.split(","):
        rows = [word.replace("ROWS", size) for word in o.pados]
        start(f"pados {int(size):,}", [o.bench, *rows, *options, "--json", o.json, "--turns"], workers)


def start_all(o, folder, workers):
    """Whether a peer failed."""
    failed = False
    pados = [o.bench, *o.pados, "--recall", o.recall, "--json", o.json, "--turns"]
    common = ["--rounds", str(o.rounds), "--seconds", o.seconds]
    threads = o.threads.split(",")
    start("pados", [*pados, *common, "--batch", o.batch, "--threads", threads[0], "--export", folder], workers)
    # What was exported is what all others read: the queries that calibrated it are in a file of their own. Pados reads a base of
    # bytes again where it lies, since it keeps such rows as they come.
    base = o.pados[o.pados.index("--base") + 1] if "--base" in o.pados else f"{folder}/base.fbin"
    again = [o.bench, "--base", base, "--query", f"{folder}/query.fbin", "--truth", f"{folder}/truth.npy"]
    if os.path.exists(f"{folder}/calibration.fbin"):
        again += ["--calibration", f"{folder}/calibration.fbin"]
    for option in ("--metric", "--k", "--nlist", "--code", "--refine", "--seed", "--dataset", "--backend"):
        if option in o.pados:
            again += [option, o.pados[o.pados.index(option) + 1]]
    if "--dataset" not in o.pados:
        import json

        with open(f"{folder}/meta.json") as file:
            again += ["--dataset", json.load(file)["dataset"]]
    again += ["--recall", o.recall, "--json", o.json, "--turns", *common]
    for extra in o.also:
        start(f"pados {extra}", [*again, "--batch", o.batch, "--threads", threads[0], *extra.split()], workers)
    for n in threads[1:]:
        start(f"pados {n} threads", [*again, "--batch", o.batch, "--threads", n], workers)
    for name, choices in split_peers(o.peers):
        for n in threads:
            command = [sys.executable, f"{HERE}/peers.py", name, folder, "--batch", o.peer_batch or o.batch, "--recall", o.recall,
                       "--threads", n, "--json", o.json, "--turns", *common]
            if choices:
                command += ["--choices", ",".join(choices)]
            if o.cache:
                command += ["--cache", o.cache]
            if o.fused_recall and n == threads[0] and name not in o.similarity_only.split(","):
                command += ["--fused-recall", o.fused_recall]
            failed |= start(name if n == threads[0] else f"{name} {n} threads", command, workers)
    return failed


def main():
    o = arguments()
    folder = o.work or tempfile.mkdtemp(prefix="pados-compare-")
    workers, failed = [], False
    try:
        if o.sizes:
            start_sizes(o, workers)
        else:
            failed = start_all(o, folder, workers)
        for number in range(1, o.rounds + 1):
            round_began = time.monotonic()
            for worker in list(workers):
                began = time.monotonic()
                more = worker.turn()
                if not more and worker.process.wait() != 0:
                    failed = left_out(worker, f"in round {number}")
                    workers.remove(worker)
                print(f"round {number} of {o.rounds}: {worker.name} in {time.monotonic() - began:.0f} s", flush=True)
            took = time.monotonic() - round_began
            print(f"round {number} of {o.rounds} took {took:.0f} s: {(o.rounds - number) * took:.0f} s to go", flush=True)
    finally:
        for worker in workers:
            if worker.process.poll() is None:
                worker.process.stdin.close()  # it ends when its turn does not come
                try:
                    worker.process.wait(timeout=60)
                except subprocess.TimeoutExpired:
                    worker.process.kill()
        if not o.work:
            shutil.rmtree(folder, ignore_errors=True)
    if failed:
        sys.exit(4)


if __name__ == "__main__":
    main()
