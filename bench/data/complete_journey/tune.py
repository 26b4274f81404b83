"""Tunes shop.conf's weights on the validation weeks: a coordinate search, two rounds.

    python make.py --validation --out /tmp/val
    python tune.py /tmp/val

Reads nothing of the test weeks. It prints each step and the weights found; they are copied into tables/shop.conf by
hand. Terms that gained nothing were taken out of the profile: the price tier matching the shopper's band, and other
feasts' goods at Thanksgiving. The occasions that the validation weeks do not hold take Thanksgiving's weight.
What is maximised is the mean of hit rate and recall@20, each divided by its value at the start.
"""

import os
import sys

from evaluate import Tables, answers, figures, parse

HERE = os.path.dirname(os.path.abspath(__file__))


def setters(profile):
    """name -> (function that sets it, values to try)."""
    terms = profile["terms"]

    def of(attribute, **when):
        return next(t for t in terms if t["attribute"] == attribute and t.get("when", {}) == when)

    def weigh(term, value):
        def put(weight):
            term["weights"] = [[v, weight if v == value else w] for v, w in term["weights"]]

        return put

    def match(term):
        return lambda weight: term.update(weight=weight)

    def slope(weight):
        of("popularity")["curve"] = [[0.0, 0.0], [9.0, 9.0 * weight]]

    feast = of("seasons", festival="thanksgiving")
    return {
        "popularity slope": (slope, (0.07, 0.08, 0.085, 0.09, 0.10)),
        "own season": (weigh(feast, "thanksgiving"), (0.0, 0.04, 0.08, 0.12)),
        "store": (match(of("stores")), (0.0, 0.02, 0.04, 0.06, 0.08)),
        "ad week": (match(of("ad_weeks")), (0.0, 0.03, 0.06, 0.09, 0.12)),
        "deal week": (match(of("deal_weeks")), (0.0, 0.03, 0.06, 0.09, 0.12)),
        "private label": (weigh(of("brand_type", price_band="value"), "Private"), (-0.02, 0.0, 0.02, 0.04)),
    }


def main():
    tables = Tables(sys.argv[1], step=2)
    if int(tables.contexts[0]["week"][1:]) >= 49:
        sys.exit("these are the test weeks: tune on make.py --validation")
    profile = parse(open(os.path.join(HERE, "tables/shop.conf")).read())["profile"]
    measure = lambda: figures(answers(tables, profile), tables.truth)
    best = start = measure()
    worth = lambda f: (f[0] / start[0] + f[1] / start[1]) / 2
    found = {}
    print("start %.4f %.4f" % start, flush=True)
    for turn in range(2):
        for name, (put, values) in setters(profile).items():
            tried = []
            for value in values:
                put(value)
                tried.append((worth(measure()), value))
            found[name] = max(tried)[1]
            put(found[name])
            print("%-22s %5.3f   %s" % (name, found[name], " ".join("%g:%.4f" % (v, w) for w, v in tried)), flush=True)
    print("end %.4f %.4f" % measure())
    print(found)


if __name__ == "__main__":
    main()
