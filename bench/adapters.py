"""The libraries that bench/peers.py measures, one class each.

A peer says choices() to build by; build(choice) builds; save(path) and load(choice, path), where they exist, keep it and bring it
back; tries() are choices of searching, least work first; range(k) is that of its one search parameter; set(try, value, k) sets it;
search(queries, k) gives ids and similarities (higher is better, best first; -1 where there is no answer); threads(n), where it
exists, sets how many it uses. `about` says which build of which version this is. data has rows, metric, threads and build_threads.
"""
import hashlib
import importlib.metadata
import os
import time

import numpy as np


def version(package):
    return importlib.metadata.version(package)


def lists(rows, factor=1.0):
    return max(1, min(rows // 39, int(factor * 4 * rows**0.5)) // 8 * 8)


class Hnswlib:
    parameter = "ef"

    def __init__(self, data):
        import hnswlib

        self.lib, self.data = hnswlib, data
        self.about = f"hnswlib {version('hnswlib')}, built by pip from source with -march=native"

    def choices(self):
        return [{"M": 16, "efConstruction": 200}, {"M": 32, "efConstruction": 200}]

    def open(self):
        return self.lib.Index("l2" if self.data.l2 else "ip", self.data.dim)

    def build(self, choice):
        self.index = self.open()
        self.index.init_index(self.data.rows, M=choice["M"], ef_construction=choice["efConstruction"], random_seed=1)
        self.index.add_items(self.data.base, num_threads=self.data.build_threads)

    def save(self, path):
        self.index.save_index(path)

    def load(self, choice, path):
        self.index = self.open()
        self.index.load_index(path)

    def tries(self):
        return [{}]

    def range(self, k):
        return k, 20000

    def set(self, choice, value, k):
        self.index.set_ef(max(value, k))

    def search(self, queries, k):
        ids, distances = self.index.knn_query(queries, k, num_threads=self.data.threads)
        return ids.astype(np.int64), -distances if self.data.l2 else 1 - distances


class Faiss:
    def __init__(self, data):
        import faiss

        self.lib, self.data = faiss, data
        options = faiss.get_compile_options().strip()
        self.about = f"faiss-cpu {version('faiss-cpu')} from PyPI ({options})"

    def threads(self, n):
        self.lib.omp_set_num_threads(n)

    def tries(self):
        return [{}]

    def search(self, queries, k):
        scores, ids = self.index.search(queries, k)
        return ids, -scores if self.data.l2 else scores


class FaissHnsw(Faiss):
    parameter = "efSearch"

    def choices(self):
        return [{"M": 16, "efConstruction": 200}, {"M": 32, "efConstruction": 200}]

    def build(self, choice):
        metric = self.lib.METRIC_L2 if self.data.l2 else self.lib.METRIC_INNER_PRODUCT
        self.index = self.lib.IndexHNSWFlat(self.data.dim, choice["M"], metric)
        self.index.hnsw.efConstruction = choice["efConstruction"]
        self.index.add(self.data.base)

    def save(self, path):
        self.lib.write_index(self.index, path)

    def load(self, choice, path):
        self.index = self.lib.read_index(path)

    def range(self, k):
        return k, 20000

    def set(self, choice, value, k):
        self.index.hnsw.efSearch = max(value, k)


class FaissIvf(Faiss):
    parameter = "nprobe"
    codes = ("Flat",)

    def choices(self):
        return [{"nlist": lists(self.data.rows, f), "codes": c} for f in (1.0, 0.5, 2.0) for c in self.codes]

    def build(self, choice):
        metric = self.lib.METRIC_L2 if self.data.l2 else self.lib.METRIC_INNER_PRODUCT
        self.index = self.lib.index_factory(self.data.dim, self.factory(choice), metric)
        self.ivf = self.lib.extract_index_ivf(self.index)
        # A training that costs a third of FAISS's default and leaves recall where it was.
        self.ivf.cp.niter, self.ivf.cp.max_points_per_centroid = 10, 128
        self.centroids()
        self.index.train(self.data.base)
        self.index.add(self.data.base)

    def centroids(self):
        """Trains the lists, or takes those that an index of as many lists was given, for which trained_s accounts."""
        self.trained_s = 0.0
        key = hashlib.sha256(f"{self.about} {self.ivf.nlist} {self.data.digest()}".encode()).hexdigest()[:16]
        path = os.path.join(self.data.cache, f"centroids-{key}.npz")
        if self.data.cache and os.path.exists(path):
            kept = np.load(path)
            self.trained_s = float(kept["seconds"])
            self.ivf.quantizer.add(kept["centroids"])
            return
        start = time.perf_counter()
        rows = np.ascontiguousarray(self.data.base)
        self.ivf.train_q1(len(rows), self.lib.swig_ptr(rows), False, self.ivf.metric_type)
        if self.data.cache:
            np.savez(path, centroids=self.ivf.quantizer.reconstruct_n(0, self.ivf.nlist), seconds=time.perf_counter() - start)

    def factory(self, choice):
        return f"IVF{choice['nlist']},{choice['codes']}"

    def range(self, k):
        return 1, self.ivf.nlist

    def set(self, choice, value, k):
        self.ivf.nprobe = value


class FaissIvfSq8(FaissIvf):
    codes = ("SQ8",)


class FaissIvfPq(FaissIvf):
    """Fast scan over 4-bit products, then exact distances of the best k * refine."""

    @property
    def codes(self):
        return [f"PQ{self.data.dim // d}x4fs" for d in ((2, 4) if self.data.dim < 256 else (8, 4))]

    def factory(self, choice):
        return f"IVF{choice['nlist']},{choice['codes']},RFlat"

    def tries(self):
        return [{"refine": r} for r in (2, 5, 10, 20, 40, 100)]

    def set(self, choice, value, k):
        self.ivf.nprobe = value
        # Over-fetching needs no more than twice what it keeps.
        self.index.k_factor = float(choice["refine"] if k <= 100 else min(choice["refine"], 2))


class Scann:
    """A tree, anisotropic 4-bit hashing, and exact re-ordering of the best k * reorder."""

    parameter = "leaves"

    def __init__(self, data):
        import scann

        self.lib, self.data = scann.scann_ops_pybind, data
        self.about = f"scann {version('scann')} from PyPI"

    def choices(self):
        return [{"num_leaves": lists(self.data.rows, f), "block": b} for b in (2, 4) for f in (0.5, 1.0)]

    def build(self, choice):
        self.leaves = choice["num_leaves"]
        measure = "squared_l2" if self.data.l2 else "dot_product"
        threshold = float("nan") if self.data.l2 else 0.2
        builder = self.lib.builder(self.data.base, self.data.k, measure)
        builder = builder.tree(self.leaves, min(100, self.leaves), training_sample_size=min(self.data.rows, 250000))
        builder = builder.score_ah(choice["block"], anisotropic_quantization_threshold=threshold).reorder(100)
        self.index = builder.set_n_training_threads(self.data.build_threads).build()

    def save(self, path):
        os.makedirs(path)
        self.index.serialize(path)

    def load(self, choice, path):
        self.leaves = choice["num_leaves"]
        self.index = self.lib.load_searcher(path)

    def tries(self):
        return [{"reorder": r} for r in (3, 5, 10, 20, 40, 100)]

    def range(self, k):
        return 1, self.leaves

    def set(self, choice, value, k):
        self.now = {"leaves_to_search": value, "pre_reorder_num_neighbors": k * (choice["reorder"] if k <= 100 else 2)}

    def search(self, queries, k):
        search = self.index.search_batched if self.data.threads == 1 else self.index.search_batched_parallel
        ids, scores = search(queries, final_num_neighbors=k, **self.now)
        found = np.isfinite(scores)
        return np.where(found, ids.astype(np.int64), -1), np.where(found, -scores if self.data.l2 else scores, -np.inf)


class Usearch:
    parameter = "ef"

    def __init__(self, data):
        from usearch.index import Index

        self.open, self.data = Index, data
        self.about = f"usearch {version('usearch')} from PyPI, {Index(ndim=data.dim).hardware_acceleration}"

    def choices(self):
        return [{"M": 16, "efConstruction": 200, "dtype": t} for t in ("f32", "f16")]

    def build(self, choice):
        self.index = self.open(ndim=self.data.dim, metric="l2sq" if self.data.l2 else "ip", dtype=choice["dtype"],
                               connectivity=choice["M"], expansion_add=choice["efConstruction"])
        self.index.add(np.arange(self.data.rows, dtype=np.uint64), self.data.base, threads=self.data.build_threads)

    def save(self, path):
        self.index.save(path)

    def load(self, choice, path):
        self.index = self.open.restore(path)

    def tries(self):
        return [{}]

    def range(self, k):
        return k, 20000

    def set(self, choice, value, k):
        self.index.expansion_search = max(value, k)

    def search(self, queries, k):
        found = self.index.search(queries, k, threads=self.data.threads)
        ids, distances = np.atleast_2d(found.keys).astype(np.int64), np.atleast_2d(found.distances)
        return ids, -distances if self.data.l2 else 1 - distances


class Svs:
    parameter = "window"

    def __init__(self, data):
        import svs

        self.lib, self.data = svs, data
        with open("/proc/cpuinfo") as file:
            intel = "GenuineIntel" in file.read()
        self.kinds = ["f32", "f16"] + (["lvq8", "lvq4x8"] if intel else [])
        self.about = f"scalable-vs {version('scalable-vs')} from PyPI" + ("" if intel else " (its LVQ codes run on Intel only)")

    def choices(self):
        return [{"degree": 32, "build window": 128, "rows": kind} for kind in self.kinds]

    def build(self, choice):
        svs, self.index = self.lib, None
        self.distance = svs.DistanceType.L2 if self.data.l2 else svs.DistanceType.MIP
        parameters = svs.VamanaBuildParameters(alpha=1.2 if self.data.l2 else 0.95, graph_max_degree=choice["degree"],
                                               window_size=choice["build window"])
        rows = np.array(self.data.base)
        if choice["rows"] == "f16":
            rows = rows.astype(np.float16)
        self.index = svs.Vamana.build(parameters, rows, self.distance, num_threads=self.data.build_threads)
        if choice["rows"].startswith("lvq"):  # compressed as it is read
            where = os.path.join(self.data.folder, "svs")
            self.save(where)
            self.load(choice, where)

    def save(self, path):
        parts = [os.path.join(path, part) for part in ("config", "graph", "data")]
        for part in parts:
            os.makedirs(part, exist_ok=True)
        self.index.save(*parts)

    def load(self, choice, path):
        svs = self.lib
        self.distance = svs.DistanceType.L2 if self.data.l2 else svs.DistanceType.MIP
        config, graph, data = (os.path.join(path, part) for part in ("config", "graph", "data"))
        rows = svs.VectorDataLoader(data, svs.DataType.float16 if choice["rows"] == "f16" else svs.DataType.float32)
        if choice["rows"].startswith("lvq"):
            bits = {"lvq8": (8, 0), "lvq4x8": (4, 8)}[choice["rows"]]
            rows = svs.LVQLoader(rows, *bits)
        self.index = svs.Vamana(config, svs.GraphLoader(graph), rows, self.distance, num_threads=self.data.threads)

    def threads(self, n):
        if getattr(self, "index", None) is not None:
            self.index.num_threads = n

    def tries(self):
        return [{}]

    def range(self, k):
        return k, 20000

    def set(self, choice, value, k):
        self.index.search_window_size = max(value, k)

    def search(self, queries, k):
        ids, distances = self.index.search(queries, k)
        return ids.astype(np.int64), -distances if self.data.l2 else distances


PEERS = {"hnswlib": Hnswlib, "faiss-ivf": FaissIvf, "faiss-ivfsq8": FaissIvfSq8, "faiss-ivfpq": FaissIvfPq,
         "faiss-hnsw": FaissHnsw, "scann": Scann, "usearch": Usearch, "svs": Svs}
