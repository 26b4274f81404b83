"""Writes: batches under idempotency keys, sent until they are answered.

The server remembers a key with the place of its batch in the log, and answers a second arrival from there. So a write whose
connection broke, or that was answered UNAVAILABLE, is sent again until its deadline; only the deadline leaves open whether
it was done, and the error then names the key.
"""

import os
import time
from typing import NamedTuple

import numpy as np

from . import pados_pb2 as wire
from . import push as pushing
from .link import PadosError

MAX_ROWS = 65536  # of one write
MAX_KEY = 128  # bytes
FIRST_PAUSE, LAST_PAUSE = 0.02, 1.0  # seconds
OPEN = ("UNAVAILABLE", "DEADLINE_EXCEEDED")


class Written(NamedTuple):
    """What a write came to."""

    sequence: int  # at_least of a search that must see it
    durable: bool  # on the disk
    changed: int  # rows
    fresh: int  # of these, ids that were not there
    missing: int  # ids that are not there: passed over
    repeated: bool  # the key was seen before: nothing was done now


def deliver(client, request, key, timeout):
    """Sends one write, again where that is safe; its WriteReply."""
    deadline = time.monotonic() + (timeout or client.timeout)
    pause, sent = FIRST_PAUSE, False
    while True:
        try:
            link = client._admin_link()
            link.wait(deadline)
            sent = True
            return link.call(request, deadline, client.token, client.limits["max_message"],
                             client.limits["max_deadline_ms"]).write
        except PadosError as error:
            last = error
        if last.status == "UNAVAILABLE" and time.monotonic() + pause < deadline:
            time.sleep(pause)
            pause = min(2 * pause, LAST_PAUSE)
            try:  # a server that was started anew may have other limits
                client._ready(deadline)
                continue
            except PadosError as error:
                last = error
        if sent and last.status in OPEN:
            raise PadosError(last.status, f"{last.message}; whether the write was done is not known: the same write under "
                             f"the key {key!r} is done at most once") from None
        raise last


def put_values(repeated, attributes, first, last):
    """AttributeValues of rows first..last. Floats in an array go as numbers, everything else as the cells of a CSV."""
    for name, column in (attributes or {}).items():
        values = repeated.add(attribute=name)
        if isinstance(column, np.ndarray) and column.dtype.kind == "f" and column.ndim == 1:
            values.numbers = column[first:last].astype("<f4").tobytes()
            continue
        number = {}
        values.text_of.extend(number.setdefault(pushing._cell(v), len(number)) for v in column[first:last])
        values.texts.extend(number)


def check_columns(attributes, rows):
    for name, column in (attributes or {}).items():
        if len(column) != rows:
            raise PadosError("INVALID_ARGUMENT", f"attributes: {name} has {len(column)} values for {rows} rows")


def key_of(key):
    if key is None:
        return os.urandom(16).hex()
    if not key or len(key.encode()) > MAX_KEY - 24:  # a part of a write adds its rows to it
        raise PadosError("INVALID_ARGUMENT", f"key: {len(key.encode())} bytes are not from 1 to {MAX_KEY - 24}")
    return key


class Batches:
    """A write of any number of rows, cut into as many as the server's limits want.

    build(request, first, last) fills in the message of these rows but for its key; body is the message's name.
    """

    def __init__(self, client, body, rows, build, key, timeout):
        if not rows:
            raise PadosError("INVALID_ARGUMENT", f"{body} of no rows")
        self.client, self.body, self.rows, self.build = client, body, rows, build
        self.key, self.timeout = key_of(key), timeout
        self.done = []

    def _message(self, first, last):
        request = wire.Request()
        self.build(request, first, last)
        whole = first == 0 and last == self.rows
        getattr(request, self.body).key = self.key if whole else f"{self.key}/{first}+{last - first}"
        return request

    def _send(self, first, last):
        request = self._message(first, last)
        limit = self.client.limits["max_message"]
        if limit and last - first > 1 and request.ByteSize() + 1024 > limit:
            middle = (first + last) // 2
            self._send(first, middle)
            self._send(middle, last)
            return
        try:
            self.done.append(deliver(self.client, request, getattr(request, self.body).key, self.timeout))
        except PadosError as error:
            if last - first == self.rows:
                raise
            raise PadosError(error.status, f"rows {first} to {last - 1}: {error.message}; the {first} rows before them "
                             f"are done, under the key {self.key!r}") from None

    def send(self):
        for first in range(0, self.rows, MAX_ROWS):
            self._send(first, min(self.rows, first + MAX_ROWS))
        return Written(max(w.sequence for w in self.done), all(w.durable for w in self.done),
                       sum(w.changed for w in self.done), sum(w.fresh for w in self.done),
                       sum(w.missing for w in self.done), all(w.repeated for w in self.done))
