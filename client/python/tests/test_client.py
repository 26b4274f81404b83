"""The Python client, against a fake server here and against a real padosd.

    PADOSD=build/bin/padosd python -m unittest discover client/python/tests      (or pytest client/python/tests)
    PADOS_URL=tcp://127.0.0.1:7461 ...                                           (a server that already runs)

Without either, only the tests against the fake server run.
"""

import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import unittest

try:
    import google.protobuf  # noqa: F401
    import numpy as np
    import pynng
    import xxhash  # noqa: F401
except ImportError as error:
    if __name__ != "__main__":
        raise
    print(f"skipped: {error} (pip install ./client/python)")
    sys.exit(77)  # what ctest takes for skipped

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
import pados  # noqa: E402
from pados import pados_pb2 as wire  # noqa: E402


class FakeServer:
    """Answers hellos, and everything else with what `answer` makes of it: bytes, None (no answer) or "hang up"."""

    def __init__(self, url, answer, **limits):
        self.answer, self.limits, self.seen = answer, limits, []
        self.socket = pynng.Rep0(listen=url)
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    def serve(self):
        while True:
            try:
                message = self.socket.recv_msg()
            except pynng.Closed:
                return
            request = wire.Request.FromString(message.bytes)
            self.seen.append(request)
            reply = wire.Reply(id=request.id)
            if request.WhichOneof("body") == "hello":
                hello = dict(server="fake 1", protocol=1, max_message=1 << 20, max_queries=100, max_k=50,
                             max_hits=5000, max_deadline_ms=60000, max_chunk=1000, backend="fake", data_url="",
                             admin_url="")
                hello.update(self.limits)
                reply.hello.CopyFrom(wire.HelloReply(**hello))
                data = reply.SerializeToString()
            else:
                data = self.answer(request, reply)
            if data == "hang up":
                message.pipe.close()
            elif data is not None:
                self.socket.send(data)

    def searches(self):
        return [r.search for r in self.seen if r.WhichOneof("body") == "search"]

    def close(self):
        self.socket.close()
        self.thread.join()


class Log:
    """Answers writes as a server does: a key that was done before is not done again. `trouble` comes first, one a write:
    "lost" before it was done, "answer lost", "unavailable", "refused"."""

    def __init__(self, *trouble):
        self.trouble, self.done, self.writes = list(trouble), {}, []

    def __call__(self, request, reply):
        body = getattr(request, request.WhichOneof("body"))
        self.writes.append(body)
        trouble = self.trouble.pop(0) if self.trouble else None
        if trouble == "lost":
            return "hang up"
        if trouble == "unavailable":
            reply.status, reply.message = 14, "the log cannot be written now"
            return reply.SerializeToString()
        if trouble == "refused":
            reply.status, reply.message = 3, "ids[1]: the id 2 is there twice"
            return reply.SerializeToString()
        ids = body.items if request.WhichOneof("body") == "feedback" else body.ids
        reply.write.repeated = body.key in self.done
        reply.write.sequence = self.done.setdefault(body.key, len(self.done) + 1)
        reply.write.durable = True
        reply.write.changed = len(ids)
        return "hang up" if trouble == "answer lost" else reply.SerializeToString()


def hits(request, reply):
    """Query i finds the rows i*10+1, i*10+2 ... with the scores 1, 1/2 ...; one hit less than was asked for."""
    search, found = request.search, reply.search
    n = search.k - 1
    for i in range(search.count):
        found.counts.append(n)
        found.ids.extend(10 * i + j + 1 for j in range(n))
        for j in range(n):
            if search.explain:
                found.explanations.add().terms.add(attribute="similarity", weight=1 / (j + 1))
    found.scores = np.tile(1 / np.arange(1, n + 1, dtype="<f4"), search.count).tobytes()
    found.version = 3
    found.sequence = max(77, search.at_least)
    return reply.SerializeToString()


class Alone(unittest.TestCase):
    """Against the fake server."""

    def setUp(self):
        self.folder = tempfile.mkdtemp()
        self.url = f"ipc://{self.folder}/socket"
        self.addCleanup(shutil.rmtree, self.folder)

    def serve(self, answer, **limits):
        server = FakeServer(self.url, answer, **limits)
        self.addCleanup(server.close)
        return server

    def client(self, **options):
        client = pados.Client(self.url, **options)
        self.addCleanup(client.close)
        return client

    def fails(self, status, call, *args, says="", **named):
        with self.assertRaises(pados.PadosError) as caught:
            call(*args, **named)
        self.assertEqual(caught.exception.status, status, caught.exception.message)
        self.assertIn(says, caught.exception.message)

    def test_hits_come_as_arrays_padded_where_there_are_fewer(self):
        self.serve(hits)
        found = self.client().search("products", np.ones((2, 4)), k=3, explain=True)
        self.assertEqual(found.ids.tolist(), [[1, 2, int(pados.MISSING)], [11, 12, int(pados.MISSING)]])
        self.assertEqual(found.scores[1].tolist(), [1.0, 0.5, -np.inf])
        self.assertEqual(found.counts.tolist(), [2, 2])
        self.assertEqual(found.explanations[1][1], [("similarity", "", 0.5)])

    def test_everything_that_is_asked_arrives(self):
        server = self.serve(hits)
        self.client(token="secret").search(
            "products", ids=[7, 2**64 - 1], from_table="users", nprobe=9, profile="festive",
            context=[{"festival": "diwali"}, {"zone": "north"}],
            filters=[("price", "<=", 20), ("zones", "any", ["a", "b"])], weights={("department", "SWEETS"): 0.25},
            diversity={"brand": 2}, exclude=[5], min_score=0.0, attributes="*")
        search = server.searches()[0]
        self.assertEqual(server.seen[-1].token, "secret")
        self.assertEqual(list(search.from_ids), [7, 2**64 - 1])
        self.assertEqual(search.from_table, "users")
        self.assertEqual([list(c.values) for c in search.contexts], [["diwali"], ["north"]])
        self.assertEqual([(c.attribute, c.kind, list(c.values)) for c in search.filters],
                         [("price", 3, ["20"]), ("zones", 4, ["a", "b"])])
        self.assertEqual((search.overrides[0].value, search.overrides[0].weight), ("SWEETS", 0.25))
        self.assertTrue(search.has_min_score)
        self.assertEqual(list(search.attributes), ["*"])

    def test_many_queries_go_in_several_requests(self):
        server = self.serve(hits)
        found = self.client().search("products", np.ones((250, 4)), k=2)
        self.assertEqual([s.count for s in server.searches()], [100, 100, 50])
        self.assertEqual(found.ids.shape, (250, 2))
        self.assertEqual(found.ids[249, 0], 491)

    def test_what_is_over_the_limits_is_never_sent(self):
        server = self.serve(hits, max_message=4096)
        client = self.client()
        self.fails("INVALID_ARGUMENT", client.search, "products", k=51, says="50")
        self.fails("INVALID_ARGUMENT", client.search, "products", np.ones((1, 2000)), says="4096")
        self.fails("INVALID_ARGUMENT", client.search, "products", exact=True, nprobe=2, says="only one")
        self.fails("INVALID_ARGUMENT", client.search, "products", np.ones((2, 4)), ids=[1], says="lengths")
        self.fails("INVALID_ARGUMENT", client.search, "products", filters=[("price", "~", 1)], says="filters")
        self.assertEqual(server.searches(), [])

    def test_a_silent_server_ends_at_the_deadline(self):
        self.serve(lambda request, reply: None)
        self.fails("DEADLINE_EXCEEDED", self.client().search, "products", timeout=0.1)

    def test_a_search_is_sent_once_even_when_the_connection_breaks(self):
        server = self.serve(lambda request, reply: "hang up")
        client = self.client()
        self.fails("UNAVAILABLE", client.search, "products", says="lost before the reply")
        server.answer = hits
        client.search("products")
        self.assertEqual(len(server.searches()), 2)
        self.assertEqual(len(server.seen), 4)  # each connection has its hello

    def test_a_server_that_comes_back_is_found_and_asked_for_its_limits(self):
        server = FakeServer(self.url, hits)
        client = self.client()
        server.close()
        self.fails("UNAVAILABLE", client.search, "products", timeout=0.1)
        self.serve(hits, max_k=3)
        self.fails("INVALID_ARGUMENT", client.search, "products", k=4, says="3")
        self.assertEqual(client.search("products", k=3).counts[0], 2)

    def test_nobody_there_is_unavailable(self):
        self.fails("UNAVAILABLE", pados.Client, self.url, timeout=0.1, says=self.url)
        self.fails("INVALID_ARGUMENT", pados.Client, "localhost:7461", says="localhost:7461")
        self.fails("INVALID_ARGUMENT", pados.Client, "tls+tcp://localhost:7461", says="ca")

    def test_the_servers_own_words_reach_the_caller(self):
        def refuse(request, reply):
            reply.status, reply.message = 5, 'table "products" does not exist'
            return reply.SerializeToString()
        self.serve(refuse)
        self.fails("NOT_FOUND", self.client().search, "products", says='table "products" does not exist')

    def test_replies_that_cannot_be_are_refused(self):
        def wrong_id(request, reply):
            reply.id += 1
            return hits(request, reply)

        def short_scores(request, reply):
            hits(request, reply)
            reply.search.scores = reply.search.scores[4:]
            return reply.SerializeToString()

        def too_many(request, reply):
            request.search.k += 5
            return hits(request, reply)

        server = self.serve(wrong_id)
        client = self.client()
        for answer in (wrong_id, short_scores, too_many, lambda request, reply: b"\xff" * 100,
                       lambda request, reply: reply.SerializeToString()):
            server.answer = answer
            self.fails("INTERNAL", client.search, "products")

    def test_threads_share_a_client(self):
        self.serve(hits)
        client = self.client()
        wrong = []

        def ask(k):
            for _ in range(20):
                if client.search("products", np.ones((3, 4)), k=k).counts.tolist() != [k - 1] * 3:
                    wrong.append(k)

        threads = [threading.Thread(target=ask, args=(k,)) for k in (2, 3, 4, 5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(wrong, [])

    def log(self, *trouble, **limits):
        log = Log(*trouble)
        self.serve(log, admin_url=self.url, **limits)
        return log

    def test_everything_an_upsert_can_say_arrives(self):
        log = self.log()
        written = self.client().upsert(
            "products", [1, 2**64 - 2, 3], np.arange(6, dtype=np.float16).reshape(3, 2),
            {"price": np.array([1.5, np.nan, 3]), "department": ["SWEETS", None, "SWEETS"],
             "zones": [["north", "south"], [], ["east"]]}, key="mine")
        self.assertEqual(written, pados.Written(1, True, 3, 0, 0, False))
        m = log.writes[0]
        self.assertEqual((m.table, m.key, list(m.ids)), ("products", "mine", [1, 2**64 - 2, 3]))
        self.assertEqual((m.vectors.dtype, m.vectors.rows, m.vectors.dim), (1, 3, 2))
        self.assertEqual(np.frombuffer(m.vectors.data, np.float16).tolist(), [0, 1, 2, 3, 4, 5])
        price, department, zones = m.attributes
        self.assertEqual(np.frombuffer(price.numbers, "<f4")[[0, 2]].tolist(), [1.5, 3])
        self.assertTrue(np.isnan(np.frombuffer(price.numbers, "<f4")[1]))
        self.assertEqual((list(department.texts), list(department.text_of)), (["SWEETS", ""], [0, 1, 0]))
        self.assertEqual([zones.texts[i] for i in zones.text_of], ["north|south", "", "east"])

    def test_deletes_updates_and_feedback_arrive(self):
        log = self.log()
        client = self.client()
        client.delete("products", 7)
        self.assertEqual(list(log.writes[-1].ids), [7])
        client.update("products", [7, 8], {"stock": [3, None]})
        values = log.writes[-1].attributes[0]
        self.assertEqual([values.texts[i] for i in values.text_of], ["3", ""])
        client.feedback("products", [5, 5], users=[1, 2], events=["view", "buy"], weights=[1, 2.5], attribute="trending")
        m = log.writes[-1]
        self.assertEqual((list(m.items), list(m.users), list(m.weights)), ([5, 5], [1, 2], [1, 2.5]))
        self.assertEqual([m.events[i] for i in m.event_of], ["view", "buy"])
        self.assertEqual(m.attribute, "trending")
        self.assertEqual(len(log.done), 3)  # each write has a key of its own

    def test_a_write_is_sent_again_under_its_key_and_done_once(self):
        for trouble in ("lost", "answer lost", "unavailable"):
            with self.subTest(trouble):
                folder = tempfile.mkdtemp()
                self.addCleanup(shutil.rmtree, folder)
                url, log = f"ipc://{folder}/socket", Log(trouble)
                server = FakeServer(url, log, admin_url=url)
                self.addCleanup(server.close)
                with pados.Client(url) as client:
                    written = client.delete("products", [7])
                self.assertEqual(written.repeated, trouble == "answer lost")
                self.assertEqual(written.sequence, 1)
                self.assertEqual(len(log.writes), 2)
                self.assertEqual(log.writes[0].key, log.writes[1].key)

    def test_a_refused_write_is_not_sent_again(self):
        log = self.log("refused")
        self.fails("INVALID_ARGUMENT", self.client().delete, "products", [1, 2], says="ids[1]")
        self.assertEqual(len(log.writes), 1)

    def test_a_write_is_given_up_at_its_deadline_and_its_key_is_named(self):
        log = self.log(*["unavailable"] * 1000)
        self.fails("UNAVAILABLE", self.client().delete, "products", [1], key="order 66", timeout=0.5,
                   says="the same write under the key 'order 66' is done at most once")
        self.assertGreater(len(log.writes), 2)

    def test_a_large_write_goes_in_parts_that_can_be_sent_again(self):
        log = self.log(max_message=1 << 16)
        client = self.client()
        rows = np.ones((3000, 8), np.float32)
        written = client.upsert("products", np.arange(3000), rows, key="monday")
        self.assertEqual((written.changed, written.sequence), (3000, len(log.writes)))
        self.assertGreater(len(log.writes), 1)
        self.assertEqual([i for m in log.writes for i in m.ids], list(range(3000)))
        self.assertTrue(client.upsert("products", np.arange(3000), rows, key="monday").repeated)
        log.trouble = [None, "refused"]
        self.fails("INVALID_ARGUMENT", client.delete, "products", np.arange(100000), says="rows ")

    def test_what_cannot_be_a_write_is_refused_here(self):
        log = self.log()
        client = self.client()
        self.fails("INVALID_ARGUMENT", client.upsert, "products", [1, 2], np.ones((3, 2)), says="for 3 rows")
        self.fails("INVALID_ARGUMENT", client.upsert, "products", [1], np.ones((1, 2)), {"price": [1, 2]}, says="price")
        self.fails("INVALID_ARGUMENT", client.update, "products", [1], {}, says="none")
        self.fails("INVALID_ARGUMENT", client.delete, "products", [], says="no rows")
        self.fails("INVALID_ARGUMENT", client.delete, "products", [1], key="k" * 129, says="129")
        self.fails("INVALID_ARGUMENT", client.feedback, "products", [1, 2], weights=[1], says="weights")
        self.assertEqual(log.writes, [])

    def test_a_search_can_ask_for_a_write(self):
        server = self.serve(hits)
        found = self.client().search("products", k=2, at_least=1000)
        self.assertEqual((server.searches()[0].at_least, found.sequence), (1000, 1000))

    def test_erasures_exports_and_snapshots(self):
        def answer(request, reply):
            body = request.WhichOneof("body")
            if body == "erase":
                for id in request.erase.ids:
                    reply.erasures.erasures.add(number=1, table="users", id=id, done=["memory"], pending=["version 3"])
            elif body == "erasure_list" and not request.erasure_list.pending: # two pages
                after = request.erasure_list.after
                for number in range(after + 1, min(after + 3, 4)):
                    reply.erasures.erasures.add(number=number, table="users", id=40 + number, done=["memory"])
                reply.erasures.more = after == 0
            elif body == "erasure_list":
                reply.erasures.SetInParent()
            elif body == "export":
                reply.export.json = '{"id": 42}'
            else:
                reply.snapshot.folder, reply.snapshot.bytes = request.snapshot.folder, 1000
            return reply.SerializeToString()

        server = self.serve(answer, admin_url=self.url)
        client = self.client()
        receipt = client.erase("users", 42)[0]
        self.assertEqual((receipt["id"], receipt["done"], receipt["pending"]), (42, ["memory"], ["version 3"]))
        self.assertEqual(client.erasures(pending=True), [])
        self.assertTrue(server.seen[-1].erasure_list.pending)
        self.assertEqual([e["id"] for e in client.erasures()], [41, 42, 43])
        self.assertEqual(server.seen[-1].erasure_list.after, 2)
        self.assertEqual(client.export("users", 42), {"id": 42})
        self.assertEqual(client.snapshot("/backup")["bytes"], 1000)

    def test_a_push_goes_on_where_a_lost_connection_left_it(self):
        parts, breaks = [bytearray() for _ in range(4)], [True, False, True, False, False]

        def take(request, reply):
            body = request.WhichOneof("body")
            if body == "push_begin":
                reply.push_begin.push = 9
                reply.push_begin.received_rows, reply.push_begin.received_ids = len(parts[0]), len(parts[1])
                reply.push_begin.received_attributes = len(parts[2])
            elif body == "push_chunk":
                chunk = request.push_chunk
                parts[chunk.part][chunk.offset:] = chunk.data
                if breaks and breaks.pop(0):
                    return "hang up"
                reply.push_chunk.received = len(parts[chunk.part])
            else:
                reply.job.job, reply.job.stage, reply.job.version = 1, "done", 8
            return reply.SerializeToString()

        self.serve(take, admin_url=self.url)
        rows = np.arange(800, dtype=np.float16).reshape(200, 4)
        stages = []
        version = self.client().push("products", rows, ids=np.arange(200) * 2, attributes={
            "price": [1.5, None] * 100, "zones": [["north", "south"], []] * 100},
            progress=lambda *at: stages.append(at))
        self.assertEqual(version, 8)
        self.assertEqual(bytes(parts[0]), rows.tobytes())
        self.assertEqual(np.frombuffer(parts[1], "<u8").tolist(), list(range(0, 400, 2)))
        self.assertEqual(parts[2].decode().splitlines()[:3], ["id,price,zones", "0,1.5,north|south", "2,,"])
        self.assertEqual(stages[-1][0], "done")

    def test_a_push_that_does_not_fit_is_not_begun(self):
        server = self.serve(hits, admin_url=self.url)
        client = self.client()
        rows = np.ones((3, 4), dtype=np.float32)
        self.fails("INVALID_ARGUMENT", client.push, "products", rows[0], says="shape")
        self.fails("INVALID_ARGUMENT", client.push, "products", rows, ids=[1, 2], says="ids")
        self.fails("INVALID_ARGUMENT", client.push, "products", rows, ids=[1, 2, -3], says="ids")
        self.fails("INVALID_ARGUMENT", client.push, "products", rows, attributes={"price": [1]}, says="price")
        self.fails("INVALID_ARGUMENT", client.push, "products", rows.astype(np.int64), says="int64")
        self.assertEqual(len(server.seen), 1)

    def test_the_committed_messages_are_what_the_proto_says(self):
        if not shutil.which("protoc"):
            self.skipTest("protoc is not installed")
        generate = pathlib.Path(__file__).resolve().parent.parent / "generate.py"
        done = subprocess.run([sys.executable, str(generate), "--check"], capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stderr)


SCHEMA = """
table = { metric = "cosine"; dim = 16;
  attributes = ( { name = "department"; type = "category"; },
                 { name = "price"; type = "number"; knots = ( 1.0, 2.0, 5.0, 10.0 ); },
                 { name = "zones"; type = "set"; } ); };
"""
PROFILE = """
profile = { name = "python_festive"; table = "python_test"; similarity = 1.0;
  context = ( "festival" );
  terms = ( { attribute = "department"; when = { festival = "diwali"; }; weights = ( ("SWEETS", 0.5) ); } ); };
"""


@unittest.skipUnless(os.environ.get("PADOSD") or os.environ.get("PADOS_URL"), "neither PADOSD nor PADOS_URL is set")
class Real(unittest.TestCase):
    """Against a padosd: started here when PADOSD names one."""

    @classmethod
    def setUpClass(cls):
        cls.process = None
        url = os.environ.get("PADOS_URL")
        if not url:
            cls.folder = tempfile.mkdtemp()
            cls.addClassCleanup(shutil.rmtree, cls.folder)
            url = f"ipc://{cls.folder}/data.sock"
            sets = [f'data_folder="{cls.folder}/data"', f'data.url="{url}"',
                    f'admin.url="ipc://{cls.folder}/admin.sock"', 'http.url=""', "memory_mib=128"]
            cls.process = subprocess.Popen([os.environ["PADOSD"], *(a for s in sets for a in ("--set", s))],
                                           stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            cls.addClassCleanup(cls.stop)
        cls.client = pados.Client(url, token=os.environ.get("PADOS_TOKEN"), timeout=60)
        cls.addClassCleanup(cls.client.close)
        random = np.random.default_rng(7)
        centres = random.normal(size=(20, 16))
        cls.rows = (centres[random.integers(20, size=3000)] + 0.3 * random.normal(size=(3000, 16))).astype(np.float32)
        cls.ids = np.arange(3000) * 3 + 1
        cls.departments = [("SWEETS", "TOYS", "LAMPS")[i % 3] for i in range(3000)]
        cls.prices = [None if i % 10 == 0 else i % 12 for i in range(3000)]
        cls.version = cls.client.push("python_test", cls.rows, ids=cls.ids, schema=SCHEMA, attributes={
            "department": cls.departments, "price": cls.prices,
            "zones": [["north"] if i % 2 else ["north", "south"] for i in range(3000)]})

    @classmethod
    def stop(cls):
        cls.process.send_signal(signal.SIGTERM)
        cls.process.wait(30)

    def exact(self, queries, k):
        unit = self.rows / np.linalg.norm(self.rows, axis=1, keepdims=True)
        queries = queries / np.linalg.norm(queries, axis=1, keepdims=True)
        return self.ids[np.argsort(-(queries @ unit.T), axis=1)[:, :k]]

    def test_an_exact_search_is_exact(self):
        found = self.client.search("python_test", self.rows[:50], k=10, exact=True)
        truth = self.exact(self.rows[:50], 10)
        common = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(found.ids.tolist(), truth.tolist())])
        self.assertGreater(common, 0.99)
        self.assertEqual(found.version, self.version)

    def test_a_recall_that_is_asked_for_is_met(self):
        queries = self.rows[:500] + 0.05
        found = self.client.search("python_test", queries, k=10, recall=0.95)
        truth = self.exact(queries, 10)
        recall = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(found.ids.tolist(), truth.tolist())])
        self.assertGreater(recall, 0.93)

    def test_a_row_that_is_asked_with_leaves_itself_out(self):
        found = self.client.search("python_test", ids=self.ids[:20], k=5)
        self.assertEqual(found.rung, ["row"] * 20)
        self.assertFalse((found.ids == self.ids[:20, None]).any())

    def test_filters_and_attributes(self):
        found = self.client.search("python_test", self.rows[:5], k=10, attributes=["department", "price"],
                                   filters=[("department", "!=", "TOYS"), ("price", "<=", 4), ("zones", "any", "south")])
        self.assertTrue((found.counts == 10).all())
        for departments, prices in zip(found.attributes["department"], found.attributes["price"]):
            self.assertNotIn("TOYS", departments)
            self.assertLessEqual(max(float(p) for p in prices), 4)

    def test_a_profile_and_its_terms(self):
        version = self.client.put_profile(PROFILE)["version"]
        plain = self.client.search("python_test", self.rows[:5], k=10, profile="python_festive")
        found = self.client.search("python_test", self.rows[:5], k=10, profile="python_festive", explain=True,
                                   context={"festival": "diwali"}, attributes=["department"])
        self.assertEqual(found.profile_version, version)
        self.assertGreater((found.attributes["department"] == "SWEETS").sum(), 40)
        self.assertFalse((plain.ids == found.ids).all())
        for scores, explained in zip(found.scores, found.explanations):
            for score, terms in zip(scores, explained):
                self.assertEqual(terms[0][0], "similarity")
                self.assertAlmostEqual(sum(t[2] for t in terms), float(score), places=5)

    def test_versions_are_staged_compared_published_and_rolled_back(self):
        staged = self.client.push("python_test", self.rows, ids=self.ids, publish=False, attributes={
            "department": self.departments, "price": self.prices, "zones": ["north"] * 3000})
        self.assertEqual(self.client.search("python_test", self.rows[0]).version, self.version)
        self.assertEqual(self.client.search(f"python_test@{staged}", self.rows[0]).version, staged)
        self.assertGreater(self.client.compare("python_test", staged)["overlap"], 0.9)
        self.assertEqual(self.client.publish("python_test", staged), staged)
        self.assertEqual(self.client.search("python_test", self.rows[0]).version, staged)
        self.assertEqual(self.client.rollback("python_test"), self.version)
        table = self.client.table("python_test")
        self.assertEqual((table["serving"], table["rows"], table["dim"]), (self.version, 3000, 16))
        self.assertIn("python_test", [t["table"] for t in self.client.tables()])

    def test_bad_rows_are_refused_by_name_and_the_version_stays(self):
        bad = self.rows.copy()
        bad[17, 3] = np.nan
        with self.assertRaises(pados.PadosError) as caught:
            self.client.push("python_test", bad, ids=self.ids)
        self.assertEqual(caught.exception.status, "INVALID_ARGUMENT")
        self.assertIn("17", caught.exception.message)
        twice = self.ids.copy()
        twice[5] = twice[4]
        with self.assertRaises(pados.PadosError) as caught:
            self.client.push("python_test", self.rows, ids=twice)
        self.assertIn(str(twice[4]), caught.exception.message)
        with self.assertRaises(pados.PadosError) as caught:
            self.client.search("python_nothing", self.rows[0])
        self.assertEqual(caught.exception.status, "NOT_FOUND")
        self.assertEqual(self.client.search("python_test", self.rows[0]).version, self.version)

    def test_stats_and_limits(self):
        self.assertTrue(self.client.stats())
        self.assertGreaterEqual(self.client.limits["max_k"], 1000)


if __name__ == "__main__":
    unittest.main()
