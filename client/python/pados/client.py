"""The client: searches, changes, pushes and administration."""

import json
import threading
import time
from urllib.parse import urlsplit

import numpy as np

from . import changes
from . import pados_pb2 as wire
from . import push as pushing
from .link import Link, PadosError

MISSING = np.uint64(2**64 - 1)  # in Result.ids, where a query has fewer than k hits
PATHS = ("ivf", "rows", "attributes", "exact", "all")
RUNGS = ("given", "row", "segment", "attributes")
KINDS = {"=": 0, "is": 0, "!=": 1, "is not": 1, ">=": 2, "<=": 3, "any": 4, "all": 5, "none": 6}
LIMITS = ("server", "protocol", "max_message", "max_queries", "max_k", "max_hits", "max_deadline_ms", "data_url",
          "admin_url", "backend", "max_chunk")
TABLE_INFO = ("table", "serving", "rows", "dim", "metric", "nlist", "code", "code_dim", "refine", "device_bytes", "host_bytes",
              "disk_bytes", "changed", "sequence", "problem")
TIMING = ("decode", "queue", "resolve", "coarse", "scan", "refine", "finish", "total")


class Result:
    """What a search found.

    ids            [count][k] uint64, MISSING where a query has fewer hits
    scores         [count][k] float32, -inf there
    counts         [count] hits of each query
    attributes     {name: [count][k] of str}, "" unknown, for the attributes that were asked for
    explanations   [count] lists of hits, each a list of (attribute, value, weight) that sum to its score; None without
    nprobe, path, rung, rung_segment   [count] how each query was answered
    version, profile_version, scanned, complete, recall, backend, warnings
    sequence       the last write of the table that the answer holds
    timing         {stage: microseconds}
    """

    def __repr__(self):
        return f"<pados.Result {len(self.counts)} queries, {int(self.counts.sum())} hits, version {self.version}>"


def _plain(message, names):
    return {name: getattr(message, name) for name in names}


def _name(names, number):
    return names[number] if number < len(names) else "unknown"


def _values(value):
    if isinstance(value, (list, tuple, set, frozenset)):
        return [str(v) for v in value]
    return [str(value)]


def _put_filters(search, filters):
    """{"department": "SWEETS"}, or (attribute, sign, value) with =, !=, >=, <=, any, all, none."""
    items = [(a, "=", v) for a, v in filters.items()] if isinstance(filters, dict) else filters
    for attribute, sign, value in items:
        if sign not in KINDS:
            raise PadosError("INVALID_ARGUMENT", f"filters: {sign!r} is none of {', '.join(KINDS)}")
        search.filters.add(attribute=attribute, kind=KINDS[sign], values=_values(value))


def _put_contexts(search, contexts):
    for context in contexts:
        search.contexts.add(keys=[str(k) for k in context], values=[str(v) for v in context.values()])


def _check(reply, count, k):
    """Nothing in a reply is believed before it fits the question."""
    r = reply.search
    counts = np.asarray(r.counts, dtype=np.int64)
    hits = int(counts.sum())
    fits = (len(counts) == count and (counts <= k).all() and len(r.ids) == hits and len(r.scores) == 4 * hits
            and all(len(a) in (0, count) for a in (r.nprobe, r.path, r.rung, r.rung_segment))
            and len(r.explanations) in (0, hits) and all(len(c.values) == hits for c in r.columns))
    if reply.WhichOneof("body") != "search" or not fits:
        raise PadosError("INTERNAL", "the reply does not hold together: it does not fit the question")
    return counts, hits


class _Collected:
    """A Result in the making, from the replies to one batch after another."""

    def __init__(self, count, k, explain):
        self.k = k
        self.at = 0
        self.result = r = Result()
        r.ids = np.full((count, k), MISSING, dtype=np.uint64)
        r.scores = np.full((count, k), -np.inf, dtype=np.float32)
        r.counts = np.zeros(count, dtype=np.int64)
        r.attributes, r.explanations = {}, [] if explain else None
        r.nprobe, r.path, r.rung, r.rung_segment = [], [], [], []
        r.version = r.profile_version = r.scanned = r.sequence = 0
        r.complete, r.recall, r.backend, r.warnings = True, 0.0, "", []
        r.timing = dict.fromkeys(TIMING, 0)

    def add(self, reply, count):
        counts, hits = _check(reply, count, self.k)
        r, s, first = self.result, reply.search, self.at
        where = np.arange(self.k)[None, :] < counts[:, None]
        r.ids[first:first + count][where] = np.asarray(s.ids, dtype=np.uint64)
        r.scores[first:first + count][where] = np.frombuffer(s.scores, dtype="<f4")
        r.counts[first:first + count] = counts
        for column in s.columns:
            cells = r.attributes.setdefault(column.attribute, np.full(r.ids.shape, "", dtype=object))
            cells[first:first + count][where] = list(column.values)
        if r.explanations is not None:
            hit = iter(s.explanations)
            for n in counts:
                r.explanations.append([[(t.attribute, t.value, t.weight) for t in e.terms]
                                       for e in (next(hit) for _ in range(n if s.explanations else 0))])
        self._add_summary(reply, s, count)
        self.at += count

    def _add_summary(self, reply, s, count):
        r = self.result
        if self.at and r.version != s.version:
            r.warnings.append(f"version {s.version} began to serve while version {r.version} was being asked")
        r.nprobe.extend(s.nprobe or [0] * count)
        r.path.extend(_name(PATHS, p) for p in (s.path or [0] * count))
        r.rung.extend(_name(RUNGS, n) for n in (s.rung or [0] * count))
        r.rung_segment.extend(s.rung_segment or [""] * count)
        r.version, r.profile_version, r.backend = s.version, s.profile_version, s.backend
        r.scanned += s.scanned
        r.sequence = min(r.sequence, s.sequence) if self.at else s.sequence
        r.recall = min(r.recall, s.recall) if self.at else s.recall
        r.complete = r.complete and s.complete
        r.warnings.extend(w for w in reply.warnings if w not in r.warnings)
        for name in TIMING:
            r.timing[name] += getattr(s.timing, name)


class Client:
    """A connection to a padosd, which threads may share. It reconnects by itself, never sends a search twice, and sends a
    write again under the same key, which the server does once.

    timeout: seconds of each request, sent as its deadline. ca, server_name: for tls+tcp:// URLs.
    admin_url: where administration goes, if not where the server says.
    """

    def __init__(self, url="tcp://127.0.0.1:7461", token=None, timeout=10.0, ca=None, server_name=None,
                 admin_url=None):
        self.url, self.token, self.timeout = url, token, timeout
        self._tls = {"ca": ca, "server_name": server_name}
        self._admin_url = admin_url
        self._admin = None
        self._lock = threading.Lock()
        self._hello_epoch = 0
        self.limits = {}
        self._link = Link(url, **self._tls)
        try:
            self._ready(time.monotonic() + min(timeout, 5.0))
        except PadosError:
            self._link.close()
            raise

    def close(self):
        self._link.close()
        if self._admin:
            self._admin.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def _ready(self, deadline):
        """Limits belong to a connection: a new one is greeted anew."""
        epoch = self._link.wait(deadline)
        if epoch == self._hello_epoch:
            return
        request = wire.Request()
        request.hello.client = "pados-python 0.1.0"
        reply = self._link.call(request, deadline, self.token)
        if reply.WhichOneof("body") != "hello" or reply.hello.protocol != 1:
            raise PadosError("UNIMPLEMENTED", f"{self.url} does not speak protocol 1 of Pados")
        self.limits = _plain(reply.hello, LIMITS)
        self._hello_epoch = epoch

    # ------------------------------------------------------------------------------------------- search

    def search(self, table, vectors=None, ids=None, from_table=None, k=10, recall=None, nprobe=None, exact=False,
               profile=None, context=None, filters=None, explain=False, attributes=(), *, mixes=None, exclude=None,
               weights=None, diversity=None, min_score=None, at_least=0, timeout=None):
        """The k rows of table that score highest, for each query.

        vectors     [count][dim], or [dim] for one
        ids         [count] rows of from_table (None: of table itself, which then leave themselves out)
        mixes       [count] dicts {id: weight}: weighted sums of rows of from_table
        recall, nprobe, exact   one of them; none: recall 0.95
        context     a dict for all queries, or a list with one for each
        filters     {"department": "SWEETS"} or [("price", "<=", 20), ("zones", "any", ["north", "south"])]
        attributes  names whose values to return with the hits; "*": all
        exclude     ids that must not be found
        weights     {"similarity": 0.5, ("department", "SWEETS"): 0.3}: overrides
        diversity   {"brand": 3}: at most so many hits of one value
        at_least    a Written's sequence, which the answer must hold: waits for it within the timeout
        None of vectors, ids and mixes: the order is by attributes alone.
        More queries than the server takes in one request are sent in several.
        """
        deadline = time.monotonic() + (timeout or self.timeout)
        self._ready(deadline)
        if (recall is not None) + (nprobe is not None) + bool(exact) > 1:
            raise PadosError("INVALID_ARGUMENT", "recall, nprobe, exact: only one of them can be asked for")
        if k < 1 or k > self.limits["max_k"]:
            raise PadosError("INVALID_ARGUMENT", f"k: {k} is not from 1 to the server's {self.limits['max_k']}")
        contexts = [context] if isinstance(context, dict) else list(context or [])
        if vectors is not None:
            vectors = np.atleast_2d(np.ascontiguousarray(vectors, dtype="<f4"))
            if vectors.ndim != 2:
                raise PadosError("INVALID_ARGUMENT", f"vectors: the shape {vectors.shape} is not count x dim")
        ids = pushing.ids_of(ids)
        count = self._count(vectors, ids, mixes, contexts)

        common = wire.Request()
        search = common.search
        search.table, search.k, search.explain = table, k, explain
        search.profile = profile or ""
        search.recall, search.nprobe, search.exact = recall or 0, nprobe or 0, bool(exact)
        search.attributes.extend([attributes] if isinstance(attributes, str) else attributes)
        _put_filters(search, filters or ())
        if len(contexts) == 1:
            _put_contexts(search, contexts)
        for key, weight in (weights or {}).items():
            attribute, value = key if isinstance(key, tuple) else (key, "")
            search.overrides.add(attribute=attribute, value=str(value), weight=weight)
        for attribute, at_most in (diversity or {}).items():
            search.diversity.add(attribute=attribute, at_most=at_most)
        if exclude is not None:
            search.exclude.add(ids=pushing.ids_of(exclude).tolist())
        search.at_least = at_least
        if min_score is not None:
            search.has_min_score, search.min_score = True, min_score

        collected = _Collected(count, k, explain)
        batch = self._batch(count, k, vectors, common)
        for first in range(0, count, batch):
            last = min(count, first + batch)
            request = wire.Request()
            request.CopyFrom(common)
            self._put_queries(request.search, first, last, vectors, ids, mixes, from_table)
            if len(contexts) > 1:
                _put_contexts(request.search, contexts[first:last])
            if first:  # each request has the whole time
                deadline = time.monotonic() + (timeout or self.timeout)
                self._ready(deadline)
            reply = self._link.call(request, deadline, self.token, self.limits["max_message"],
                                    self.limits["max_deadline_ms"])
            collected.add(reply, last - first)
        return collected.result

    @staticmethod
    def _count(vectors, ids, mixes, contexts):
        counts = {len(a) for a in (vectors, ids, mixes) if a is not None}
        if len(contexts) > 1:
            counts.add(len(contexts))
        if len(counts) > 1:
            raise PadosError("INVALID_ARGUMENT", f"vectors, ids, mixes and contexts are of different lengths: "
                             f"{', '.join(str(c) for c in sorted(counts))}")
        count = counts.pop() if counts else 1
        if not count:
            raise PadosError("INVALID_ARGUMENT", "a search of no queries")
        return count

    def _batch(self, count, k, vectors, common):
        size = (vectors.shape[1] * 4 if vectors is not None else 0) + 256
        room = max(0, self.limits["max_message"] - common.ByteSize() - 4096)
        batch = min(count, self.limits["max_queries"], self.limits["max_hits"] // k, room // size)
        return max(1, batch)

    @staticmethod
    def _put_queries(search, first, last, vectors, ids, mixes, from_table):
        search.count = last - first
        if vectors is not None:
            search.vectors.dtype = 0
            search.vectors.rows, search.vectors.dim = last - first, vectors.shape[1]
            search.vectors.data = vectors[first:last].tobytes()
        if ids is not None:
            search.from_table = from_table or ""
            search.from_ids.extend(ids[first:last].tolist())
        for mix in (mixes or ())[first:last]:
            search.mixes.add(ids=[int(i) for i in mix], weights=list(mix.values()), table=from_table or "")

    # ------------------------------------------------------------------------------------------- push

    def push(self, table, array, ids=None, attributes=None, schema=None, publish=True, progress=None, *, metric=None,
             queries=None, nlist=0):
        """Sends array [rows][dim] as a new version of table, and waits until it serves (or is staged); its number.

        ids         [rows]; None: 0, 1, 2 ...
        attributes  {name: [rows] values}: None and NaN are unknown, a list or set holds a set's members
        schema      libconfig text; None: the table's own, else a plain one with metric
        queries     [n][dim] vectors like those that will be asked, to calibrate recall on
        progress    called with (stage, done, total)
        """
        self._ready(time.monotonic() + self.timeout)
        array = pushing.rows_of(array)
        rows, dim = array.shape
        ids = pushing.ids_of(ids, rows)
        csv = pushing.csv_of(attributes, ids, rows)
        sample = b""
        if queries is not None:
            queries = np.ascontiguousarray(queries, dtype="<f4")
            if queries.ndim != 2 or queries.shape[1] != dim:
                raise PadosError("INVALID_ARGUMENT", f"queries: the shape {queries.shape} is not n x {dim}")
            sample = memoryview(queries).cast("B")
        begin = wire.PushBegin(table=table, schema=schema or "", metric=metric or "",
                               dtype=pushing.DTYPES[array.dtype.name], dim=dim, rows=rows,
                               ids_bytes=0 if ids is None else ids.nbytes, attributes_bytes=len(csv),
                               attributes_name="attributes", queries_rows=len(sample) // (4 * dim), nlist=nlist)
        parts = [memoryview(array).cast("B"), b"" if ids is None else memoryview(ids).cast("B"), csv, sample]
        job = pushing.Push(self, begin, parts, publish, progress).deliver()
        return pushing.wait_for_job(self, job, progress)

    # ------------------------------------------------------------------------------------------- changes

    def upsert(self, table, ids, vectors, attributes=None, *, key=None, timeout=None):
        """Writes rows into a table that serves: new ids are added, others replaced, vector and attributes; a Written.

        ids         [rows], or one
        vectors     [rows][dim], or [dim] for one
        attributes  {name: [rows] values}, as push has them; those that are not named become unknown
        key         idempotency: the same write under the same key is done once; None: one is made
        More rows than one write may have are sent in several, in order.
        """
        self._ready(time.monotonic() + (timeout or self.timeout))
        vectors = pushing.rows_of(np.atleast_2d(np.asarray(vectors)))
        rows, dim = vectors.shape
        ids = pushing.ids_of(ids, rows)
        changes.check_columns(attributes, rows)

        def build(request, first, last):
            m = request.upsert
            m.table = table
            m.ids.extend(ids[first:last].tolist())
            m.vectors.dtype, m.vectors.rows, m.vectors.dim = pushing.DTYPES[vectors.dtype.name], last - first, dim
            m.vectors.data = vectors[first:last].tobytes()
            changes.put_values(m.attributes, attributes, first, last)

        return changes.Batches(self, "upsert", rows, build, key, timeout).send()

    def delete(self, table, ids, *, key=None, timeout=None):
        """Takes rows out of a table that serves; a Written. Ids that are not there are counted as missing."""
        self._ready(time.monotonic() + (timeout or self.timeout))
        ids = pushing.ids_of(ids)

        def build(request, first, last):
            request.delete.table = table
            request.delete.ids.extend(ids[first:last].tolist())

        return changes.Batches(self, "delete", len(ids), build, key, timeout).send()

    def update(self, table, ids, attributes, *, key=None, timeout=None):
        """Changes the named attributes of rows that are there, {name: [rows] values}; a Written."""
        self._ready(time.monotonic() + (timeout or self.timeout))
        ids = pushing.ids_of(ids)
        if not attributes:
            raise PadosError("INVALID_ARGUMENT", "attributes: an update of none of them")
        changes.check_columns(attributes, len(ids))

        def build(request, first, last):
            request.update.table = table
            request.update.ids.extend(ids[first:last].tolist())
            changes.put_values(request.update.attributes, attributes, first, last)

        return changes.Batches(self, "update", len(ids), build, key, timeout).send()

    def feedback(self, table, items, users=None, events=None, weights=None, attribute="", *, key=None, timeout=None):
        """Counts events, each of which raises its item's counter; a Written.

        items       [n] ids, which may repeat
        users       [n] ids; not kept
        events      [n] names, whose weights are the schema's; None: weight 1
        weights     [n] times the event's own; None: 1
        attribute   which counter; "": the table's only one
        """
        self._ready(time.monotonic() + (timeout or self.timeout))
        items = pushing.ids_of(items)
        users = pushing.ids_of(users, len(items))
        changes.check_columns({n: c for n, c in (("events", events), ("weights", weights)) if c is not None}, len(items))

        def build(request, first, last):
            m = request.feedback
            m.table, m.attribute = table, attribute
            m.items.extend(items[first:last].tolist())
            if users is not None:
                m.users.extend(users[first:last].tolist())
            if events is not None:
                number = {}
                m.event_of.extend(number.setdefault(str(e), len(number)) for e in events[first:last])
                m.events.extend(number)
            if weights is not None:
                m.weights.extend(float(w) for w in weights[first:last])

        return changes.Batches(self, "feedback", len(items), build, key, timeout).send()

    def erase(self, table, ids):
        """Removes rows from memory at once and from every file by a deadline; a receipt for each, as erasures has it."""
        request = wire.Request()
        request.erase.table = table
        request.erase.ids.extend(pushing.ids_of(ids).tolist())
        return self._receipts(self.admin(request).erasures)

    def erasures(self, pending=False):
        """The receipts of all erasures, or of those that are not done."""
        request = wire.Request()
        request.erasure_list.pending = pending
        receipts, more = [], True
        while more:
            page = self.admin(request).erasures
            receipts += self._receipts(page)
            more = page.more and len(page.erasures) > 0
            if more:
                request.erasure_list.after = page.erasures[-1].number
        return receipts

    @staticmethod
    def _receipts(page):
        names = ("number", "table", "id", "asked", "deadline", "finished")
        return [dict(_plain(e, names), done=list(e.done), pending=list(e.pending)) for e in page.erasures]

    def export(self, table, id):
        """All that is held about a row."""
        request = wire.Request()
        request.export.table, request.export.id = table, id
        return json.loads(self.admin(request).export.json)

    def snapshot(self, folder, timeout=3600.0):
        """Writes a consistent copy of everything into folder, on the server, which must not be there yet."""
        request = wire.Request()
        request.snapshot.folder = folder
        reply = self._admin_link().call(request, time.monotonic() + timeout, self.token, self.limits["max_message"],
                                        self.limits["max_deadline_ms"])
        return _plain(reply.snapshot, ("folder", "sequence", "bytes", "tables", "seconds"))

    def rebuild(self, table, progress=None):
        """Builds a new version from the rows as they are now, and waits until it serves; its number."""
        request = wire.Request()
        request.rebuild.table = table
        return pushing.wait_for_job(self, self.admin(request).job.job, progress)

    # ------------------------------------------------------------------------------------------- administration

    def admin(self, request):
        """One wire.Request to the admin listener; the wire.Reply."""
        return self._admin_link().call(request, time.monotonic() + self.timeout, self.token,
                                       self.limits["max_message"], self.limits["max_deadline_ms"])

    def _admin_link(self):
        with self._lock:
            if self._admin is None:
                url = self._admin_url or self._reachable(self.limits["admin_url"])
                if not url:
                    raise PadosError("FAILED_PRECONDITION", f"{self.url} has no listener for administration")
                if not self._admin_url and self._is_downgrade(url):
                    raise PadosError("FAILED_PRECONDITION", f"{self.url} names {url} for administration, which has no "
                                     "TLS: give it as admin_url if you mean to go there")
                self._admin = Link(url, **self._tls)
            return self._admin

    def _is_downgrade(self, named):
        """Whether a token would leave the machine in the clear although the server was reached by TLS."""
        host = urlsplit(named).hostname or ""
        return (self.url.startswith("tls+") and named.startswith("tcp")
                and not host.startswith("127.") and host not in ("localhost", "::1"))

    def _reachable(self, named):
        """A server that listens everywhere names no host to go to: the one that it was reached by stands in."""
        scheme, _, rest = named.partition("://")
        host, _, port = rest.rpartition(":")
        if scheme in ("ipc", "inproc", "") or host not in ("", "*", "0.0.0.0", "[::]", "[::0]"):
            return named
        ours = urlsplit(self.url).hostname
        return f"{scheme}://{'[' + ours + ']' if ':' in ours else ours}:{port}" if ours else named

    def tables(self):
        """A dict for each table."""
        request = wire.Request()
        request.table_list.SetInParent()
        return [_plain(t, TABLE_INFO) for t in self.admin(request).table_list.tables]

    def table(self, name):
        """One table: its versions, calibration curve and schema."""
        request = wire.Request()
        request.table_get.table = name
        reply = self.admin(request).table
        table = _plain(reply.info, TABLE_INFO)
        table["versions"] = [_plain(v, ("version", "state", "rows", "created", "disk_bytes", "problem"))
                             for v in reply.versions]
        table["curve"] = [_plain(p, ("k", "spread", "nprobe", "depth", "recall", "lower")) for p in reply.curve]
        table.update(_plain(reply, ("schema", "calibration_source", "calibration_queries")))
        return table

    def compare(self, table, version, k=10, queries=1000):
        """A version beside the one that serves: overlap of the top k, and each one's recall."""
        request = wire.Request()
        request.compare.table, request.compare.version = table, version
        request.compare.k, request.compare.queries = k, queries
        return _plain(self.admin(request).compare, ("serving", "version", "k", "queries", "overlap", "serving_recall",
                                                    "version_recall", "only_serving", "only_version"))

    def publish(self, table, version, progress=None):
        """Lets a staged or kept version serve; its number."""
        request = wire.Request()
        request.publish.table, request.publish.version = table, version
        return pushing.wait_for_job(self, self.admin(request).job.job, progress)

    def rollback(self, table, progress=None):
        """Lets the version before the serving one serve again; its number."""
        request = wire.Request()
        request.rollback.table = table
        return pushing.wait_for_job(self, self.admin(request).job.job, progress)

    def put_profile(self, text, file="profile"):
        """Makes a new version of the profile that text (libconfig) names. file is for the server's messages."""
        request = wire.Request()
        request.profile_put.text, request.profile_put.file = text, file
        return _plain(self.admin(request).profile, ("name", "version", "table", "valid_from", "valid_until"))

    def profiles(self):
        request = wire.Request()
        request.profile_list.SetInParent()
        return [_plain(p, ("name", "version", "table", "valid_from", "valid_until"))
                for p in self.admin(request).profile_list.profiles]

    def profile(self, name):
        request = wire.Request()
        request.profile_get.name = name
        return _plain(self.admin(request).profile, ("name", "version", "table", "text", "valid_from", "valid_until"))

    def stats(self):
        """The server's counters, {name: value}."""
        request = wire.Request()
        request.stats.SetInParent()
        reply = self.admin(request).stats
        return dict(zip(reply.names, reply.values))
