"""Hit rate and recall@20 of the Complete Journey tables, exactly and without the engine.

    python evaluate.py [--tables DIR] [--profile FILE] [--history]

One request is one household in one held-out week in which it bought something of the catalogue: line i of
eval_contexts.csv, row i of eval_households_ids.npy, line i of eval_truth.csv. Its answer is the 20 products of highest
score, ties by the smaller id. hit rate = the share of requests with at least one purchase of that week among the 20;
recall@20 = the mean over requests of (purchases among the 20) / (all the week's purchases). The truth's `again` and `new`
columns are what the household had and had not bought before the cut: both count. --history (it needs the PyPI
package) measures besides the harder question: new products only, with everything bought before left out.
"""

import argparse
import csv
import os
import re

import numpy as np

K = 20


def parse(text):
    """The libconfig of schemas and profiles, as dicts, lists and numbers."""
    text = re.sub(r"#[^\n\"]*(?=\n)", "", text)
    tokens = re.findall(r'"[^"]*"|[{}()=;,]|[^\s{}()=;,"]+', text)
    at = 0

    def value():
        nonlocal at
        token, at = tokens[at], at + 1
        if token == "{":
            return group("}")
        if token == "(":
            items = []
            while tokens[at] != ")":
                items.append(value())
                at += tokens[at] == ","
            at += 1
            return items
        if token[0] == '"':
            return token[1:-1]
        return token == "true" if token in ("true", "false") else float(token.rstrip("L"))

    def group(end):
        nonlocal at
        items = {}
        while at < len(tokens) and tokens[at] != end:
            name, at = tokens[at], at + 2
            items[name] = value()
            at += at < len(tokens) and tokens[at] == ";"
        at += 1
        return items

    return group(None)


def read_csv(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


class Tables:
    def __init__(self, folder, step=1):
        """step: takes every step-th request."""
        at = lambda name: os.path.join(folder, name)
        unit = lambda rows: rows / np.linalg.norm(rows, axis=1, keepdims=True)
        self.products = unit(np.load(at("products.npy")).astype(np.float32))
        self.ids = np.load(at("products_ids.npy")).astype(np.int64)  # ascending
        self.households = unit(np.load(at("households.npy")).astype(np.float32))
        self.household_ids = np.load(at("households_ids.npy")).astype(np.int64)
        rows = {int(r["id"]): r for r in read_csv(at("products.csv"))}
        self.rows = [rows[i] for i in self.ids]
        self.schema = {a["name"]: a for a in parse(open(schema_path(folder)).read())["table"]["attributes"]}
        self.asked = np.load(at("eval_households_ids.npy")).astype(np.int64)[::step]
        self.contexts = read_csv(at("eval_contexts.csv"))[::step]
        truth = read_csv(at("eval_truth.csv"))[::step]
        split = lambda cell: [int(x) for x in cell.split("|")] if cell else []
        self.again = [np.searchsorted(self.ids, split(t["again"])) for t in truth]
        self.new = [np.searchsorted(self.ids, split(t["new"])) for t in truth]
        self.truth = [np.concatenate([a, b]).astype(int) for a, b in zip(self.again, self.new)]
        self.queries = self.households[np.searchsorted(self.household_ids, self.asked)]
        self.cache = {}

    def members(self, attribute, name):
        """[products] 1 where the row holds this value or member."""
        key = (attribute, name)
        if key not in self.cache:
            self.cache[key] = np.array([name in r[attribute].split("|") for r in self.rows], np.float32)
        return self.cache[key]

    def curve(self, attribute, points):
        """A curve at each row: its bucket's representative (the mean of the bucket's values) on the line."""
        if attribute not in self.cache:
            values = np.array([float(r[attribute] or "nan") for r in self.rows])
            bucket = np.searchsorted(self.schema[attribute]["knots"], values, side="right")
            known = np.isfinite(values)
            mean = np.bincount(bucket[known], values[known]) / np.maximum(np.bincount(bucket[known]), 1)
            self.cache[attribute] = np.where(known, mean[np.minimum(bucket, len(mean) - 1)], np.nan)
        x, y = zip(*points)
        return np.nan_to_num(np.interp(self.cache[attribute], x, y)).astype(np.float32)


def schema_path(folder):
    own = os.path.join(folder, "products.schema")
    return (
        own
        if os.path.exists(own)
        else os.path.join(os.path.dirname(os.path.abspath(__file__)), "tables/products.schema")
    )


def weights(tables, profile, context):
    """[products]: the sum of what the profile gives each product in this context."""
    total = np.zeros(len(tables.ids), np.float32)
    for term in profile["terms"]:
        name = term["attribute"]
        if any(context.get(key) != wanted for key, wanted in term.get("when", {}).items()):
            continue
        if "curve" in term:
            total += tables.curve(name, term["curve"])
        elif "matches" in term and context.get(term["matches"]):
            total += np.float32(term["weight"]) * tables.members(name, context[term["matches"]])
        for value, weight in term.get("weights", ()):
            total += np.float32(weight) * tables.members(name, value)
    return total


def top(scores):
    """[n][K] row numbers, by score and then by id (rows are in the order of ids)."""
    near = np.sort(np.argpartition(-scores, 3 * K, axis=1)[:, : 3 * K], axis=1)
    order = np.argsort(-np.take_along_axis(scores, near, 1), axis=1, kind="stable")[:, :K]
    return np.take_along_axis(near, order, 1)


def answers(tables, profile, with_context=True, similarity=1.0, left_out=None):
    """[requests][K] row numbers. left_out: [requests] arrays of rows that must not be answered."""
    rows, made = np.empty((len(tables.asked), K), int), {}
    for first in range(0, len(rows), 256):
        part = slice(first, min(first + 256, len(rows)))
        scores = np.float32(similarity) * (tables.queries[part] @ tables.products.T)
        for i, context in enumerate(tables.contexts[part]):
            context = context if with_context else {}
            key = tuple(context.items())
            if profile and key not in made:
                made[key] = weights(tables, profile, context)
            scores[i] += made[key] if profile else 0
            if left_out is not None:
                scores[i, left_out[first + i]] = -np.inf
        rows[part] = top(scores)
        if len(made) > 300:
            made.clear()
    return rows


def figures(rows, truth):
    """Hit rate and recall@20; requests without truth are passed over."""
    found = np.array([np.isin(r, t).sum() for r, t in zip(rows, truth)])
    size = np.array([len(t) for t in truth])
    asked = size > 0
    return (found[asked] > 0).mean(), (found[asked] / size[asked]).mean()


def main():
    here = os.path.dirname(os.path.abspath(__file__))
    args = argparse.ArgumentParser(description="hit rate and recall@20 on the held-out weeks")
    args.add_argument("--tables", default=os.path.join(here, "tables"))
    args.add_argument("--profile", default=os.path.join(here, "tables/shop.conf"))
    args.add_argument("--history", action="store_true", help="also: new products only, history left out")
    args = args.parse_args()
    tables = Tables(args.tables)
    profile = parse(open(args.profile).read())["profile"]
    ways = (
        ("popularity alone", profile, False, 0.0),
        ("no vector, context", profile, True, 0.0),
        ("similarity alone", None, False, 1.0),
        ("without context", profile, False, 1.0),
        ("with context", profile, True, 1.0),
    )
    print(
        "%d requests of %d households, %d purchases to find, %d products"
        % (len(tables.asked), len(set(tables.asked)), sum(map(len, tables.truth)), len(tables.ids))
    )
    print("%-18s %10s %10s %14s" % ("", "hit rate", "recall@20", "of new alone"))
    for name, use, context, similarity in ways:
        rows = answers(tables, use, context, similarity)
        print(
            "%-18s %10.4f %10.4f %14.4f" % ((name,) + figures(rows, tables.truth) + figures(rows, tables.new)[1:]),
            flush=True,
        )
    if args.history:
        import make

        bought = make.load()[0]
        last = int(tables.contexts[0]["week"][1:]) - 1
        bought = bought[(bought.week <= last) & bought.product_id.isin(tables.ids)]
        seen = bought.groupby("household_id").product_id.unique()
        left_out = [np.searchsorted(tables.ids, seen[h]) for h in tables.asked]
        print("new products only, what was bought before left out:")
        for name, use, context, similarity in ways:
            rows = answers(tables, use, context, similarity, left_out)
            print("%-18s %10.4f %10.4f" % ((name,) + figures(rows, tables.new)), flush=True)


if __name__ == "__main__":
    main()
