"""One connection: a REQ socket, what it sends once, and what came back.

A request is never sent twice by itself: NNG's resending is switched off, so that a search whose connection breaks fails
with UNAVAILABLE at once and its caller decides. Threads may share a link: each call has a context of its own.
"""

import threading
import time
from urllib.parse import urlsplit

import pynng

from . import pados_pb2 as wire

STATUS = ("OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS",
          "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED",
          "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED")
MAX_REPLY = 512 << 20  # bytes


class PadosError(Exception):
    """status: the canonical name, "NOT_FOUND" and so on. message: one sentence."""

    def __init__(self, status, message):
        super().__init__(f"{status}: {message}")
        self.status = status
        self.message = message


class Link:
    def __init__(self, url, ca=None, server_name=None):
        self.url = url
        self._lock = threading.Lock()
        self._changed = threading.Condition()
        self._up = 0  # number of the connection that is up; 0: none
        self._epoch = 0
        self._next = 0
        try:
            self._socket = pynng.Req0(resend_time=-1, recv_max_size=MAX_REPLY, reconnect_time_min=20,
                                      reconnect_time_max=1000)
            if url.startswith("tls+tcp"):
                if not ca:
                    raise PadosError("INVALID_ARGUMENT", f"{url}: a tls+tcp URL needs ca, its authority's certificate")
                self._socket.tls_config = pynng.TLSConfig(
                    pynng.TLSConfig.MODE_CLIENT, server_name=server_name or urlsplit(url).hostname, ca_files=[ca],
                    auth_mode=pynng.TLSConfig.AUTH_MODE_REQUIRED)
            self._socket.add_post_pipe_connect_cb(self._connected)
            self._socket.add_post_pipe_remove_cb(self._removed)
            self._socket.dial(url, block=False)
        except pynng.NNGException as error:
            raise PadosError("INVALID_ARGUMENT", f"{url} is not an address to connect to: {error}") from None

    def close(self):
        self._socket.close()

    def _connected(self, pipe):
        with self._changed:
            self._epoch += 1
            self._up = self._epoch
            self._pipe = pipe.id
            self._changed.notify_all()

    def _removed(self, pipe):
        with self._changed:
            if self._up and pipe.id == self._pipe:
                self._up = 0

    def _lost(self, epoch):
        """A request may learn of a broken connection before _removed does."""
        with self._changed:
            if self._up == epoch:
                self._up = 0

    def wait(self, deadline):
        """Waits for a connection until time.monotonic() is deadline; gives its number."""
        with self._changed:
            self._changed.wait_for(lambda: self._up, max(0.0, deadline - time.monotonic()))
            if not self._up:
                raise PadosError("UNAVAILABLE", f"{self.url} does not answer: no connection in the time given")
            return self._up

    def call(self, request, deadline, token="", max_message=0, max_deadline_ms=0):
        """Sends request once; the Reply, once it is known to be the one to this request and OK."""
        epoch = self.wait(deadline)
        left = int((deadline - time.monotonic()) * 1000)
        if left <= 0:
            raise PadosError("DEADLINE_EXCEEDED", "the deadline passed before the request was sent")
        with self._lock:
            self._next += 1
            request.id = self._next
        request.token = token or ""
        request.deadline_ms = min(left, max_deadline_ms or left)
        data = request.SerializeToString()
        if max_message and len(data) > max_message:
            raise PadosError("INVALID_ARGUMENT", f"the request has {len(data)} bytes, more than the {max_message} that "
                             "the server reads: send it in parts")
        return self._checked(request, self._exchange(data, left, epoch))

    def _exchange(self, data, left, epoch):
        with self._lock:  # a context takes the socket's timeouts when it is made
            self._socket.send_timeout = self._socket.recv_timeout = left
            context = self._socket.new_context()
        try:
            try:
                context.send(data)
            except pynng.NNGException as error:
                raise PadosError("UNAVAILABLE", f"{self.url}: the request was not sent: {error}") from None
            return context.recv()
        except pynng.Timeout:
            raise PadosError("DEADLINE_EXCEEDED", f"{self.url}: no reply before the deadline") from None
        except pynng.NNGException as error:
            self._lost(epoch)
            raise PadosError("UNAVAILABLE", f"{self.url}: the connection was lost before the reply: {error}") from None
        finally:
            context.close()

    def _checked(self, request, data):
        reply = wire.Reply()
        try:
            reply.ParseFromString(data)
        except Exception:
            raise PadosError("INTERNAL", f"{self.url}: the reply ({len(data)} bytes) is not one that can be read") from None
        if reply.id != request.id:
            raise PadosError("INTERNAL", f"the reply is to request {reply.id}, not to {request.id}")
        if reply.status:
            name = STATUS[reply.status] if reply.status < len(STATUS) else "UNKNOWN"
            raise PadosError(name, reply.message or "the server gave no reason")
        return reply
