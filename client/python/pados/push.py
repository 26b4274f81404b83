"""A push: begin, chunks, commit, and waiting for the job. What breaks on the way is resumed under the push's key."""

import csv
import io
import math
import operator
import os
import time

import numpy as np
import xxhash

from . import pados_pb2 as wire
from .link import STATUS, PadosError

ATTEMPTS = 5
DTYPES = {"float32": 0, "float16": 1, "int8": 2, "uint8": 3}


def rows_of(array):
    """[rows][dim] in a dtype that the wire has, C order."""
    array = np.asarray(array)
    if array.ndim != 2 or not array.shape[0] or not array.shape[1]:
        raise PadosError("INVALID_ARGUMENT", f"the vectors have the shape {array.shape}: rows x dim is wanted")
    if array.dtype.name not in DTYPES:
        if array.dtype.kind != "f":
            raise PadosError("INVALID_ARGUMENT", f"vectors of {array.dtype.name} cannot be pushed: "
                             "float32, float16, int8 or uint8")
        array = array.astype(np.float32)
    return np.ascontiguousarray(array)


def ids_of(ids, rows=None):
    """[rows] as uint64; rows None: any number of them, or a single one."""
    if ids is None:
        return None
    if not isinstance(ids, np.ndarray):  # numpy would make floats of a list that holds a large id
        try:
            ids = [operator.index(i) for i in (ids if np.iterable(ids) else [ids])]
            if ids and min(ids) < 0:
                raise OverflowError
            ids = np.array(ids, dtype=np.uint64)
        except (TypeError, OverflowError):
            raise PadosError("INVALID_ARGUMENT", "ids: they must be whole numbers from 0 to 2^64 - 1") from None
    if ids.ndim != 1 or (rows is not None and len(ids) != rows):
        raise PadosError("INVALID_ARGUMENT", f"ids: the shape {ids.shape}" + (f" for {rows} rows" if rows else ""))
    if ids.dtype.kind not in "iu" or (ids.dtype.kind == "i" and (ids < 0).any()):
        raise PadosError("INVALID_ARGUMENT", "ids: they must be whole numbers from 0 to 2^64 - 1")
    return np.ascontiguousarray(ids, dtype="<u8")


def _cell(value):
    if value is None:
        return ""
    if isinstance(value, (list, tuple, set, frozenset)):
        return "|".join(str(v) for v in value)
    if isinstance(value, (float, np.floating)):
        return "" if math.isnan(value) else repr(float(value))
    return str(value)


def csv_of(columns, ids, rows):
    """The CSV of a dict of columns: None and NaN are unknown, a set's members are a list, tuple or set."""
    if not columns:
        return b""
    for name, column in columns.items():
        if len(column) != rows:
            raise PadosError("INVALID_ARGUMENT", f"attributes: {name} has {len(column)} values for {rows} rows")
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["id", *columns])
    for row in zip(range(rows) if ids is None else ids.tolist(), *columns.values()):
        writer.writerow([row[0], *(_cell(v) for v in row[1:])])
    return out.getvalue().encode()


class Push:
    def __init__(self, client, begin, parts, publish, progress):
        self.client = client
        self.begin = begin
        self.begin.key = os.urandom(16).hex()
        self.parts = parts  # bytes-like, in the order of PushChunk.Part
        self.publish = publish
        self.progress = progress
        self.received = [0] * len(parts)
        self.number = 0

    def _begin(self):
        request = wire.Request()
        request.push_begin.CopyFrom(self.begin)
        reply = self.client.admin(request).push_begin
        self.number = reply.push
        self.received = [reply.received_rows, reply.received_ids, reply.received_attributes, reply.received_queries]

    def _send(self):
        size = self.client.limits["max_chunk"] or 1 << 20
        total = sum(len(part) for part in self.parts)
        for number, part in enumerate(self.parts):
            while self.received[number] < len(part):
                offset = self.received[number]
                data = bytes(part[offset:offset + size])
                request = wire.Request()
                chunk = request.push_chunk
                chunk.push, chunk.part, chunk.offset, chunk.data = self.number, number, offset, data
                chunk.checksum = xxhash.xxh3_64_intdigest(data)
                got = self.client.admin(request).push_chunk.received
                if got != offset + len(data):
                    raise PadosError("INTERNAL", f"the server has {got} bytes where {offset + len(data)} were sent")
                self.received[number] = got
                if self.progress:
                    self.progress("send", sum(self.received), total)

    def _commit(self):
        request = wire.Request()
        request.push_commit.push = self.number
        request.push_commit.publish = self.publish
        return self.client.admin(request).job.job

    def _abort(self):
        request = wire.Request()
        request.push_abort.push = self.number
        try:
            self.client.admin(request)
        except PadosError:
            pass  # a courtesy: the server drops it in its own time

    def deliver(self):
        """Sends it all; the number of the job that builds it."""
        furthest, attempt = 0, 0
        while True:
            begun = False
            try:
                self._begin()
                begun = True
                self._send()
                return self._commit()
            except PadosError as error:
                if error.status not in ("UNAVAILABLE", "DEADLINE_EXCEEDED"):
                    if begun:
                        self._abort()
                    raise
                if sum(self.received) > furthest:
                    furthest, attempt = sum(self.received), 0
                attempt += 1
                if attempt >= ATTEMPTS:
                    raise
            except BaseException:  # the progress function's, or an interrupt
                if begun:
                    self._abort()
                raise


def wait_for_job(client, number, progress=None):
    """Polls until the job is over; its version. A failed job's own status is raised."""
    pause, lost = 0.005, 0
    while True:
        request = wire.Request()
        request.job_get.job = number
        try:
            job = client.admin(request).job
        except PadosError as error:
            if error.status == "NOT_FOUND":  # jobs are not kept over a restart
                raise PadosError("UNAVAILABLE", f"the server knows no job {number} any more: it was started again, and "
                                 "what the job had not finished is undone; do it again") from error
            lost += 1
            if error.status not in ("UNAVAILABLE", "DEADLINE_EXCEEDED") or lost > 3:
                raise
            continue
        lost = 0
        if progress:
            progress(job.stage, job.done, job.total)
        if job.status or job.stage == "failed":
            name = STATUS[job.status] if 0 < job.status < len(STATUS) else "UNKNOWN"
            raise PadosError(name, job.message or "the job failed and gave no reason")
        if job.stage == "done":
            return job.version
        time.sleep(pause)
        pause = min(2 * pause, 0.5)
