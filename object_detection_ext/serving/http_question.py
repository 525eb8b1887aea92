# SPDX-License-Identifier: Apache-2.0
"""One question over HTTP with one deadline for all of it, and an end to what is read."""

import contextlib
import functools
import http.client
import socket
import ssl
import threading
import time
import urllib.error
import urllib.request
from typing import Any

# What is read of an answer that says what is wrong.
_MAX_ERROR_BYTES = 64 * 2**10
_CHUNK_BYTES = 64 * 2**10


class TooLateError(Exception):
    """There was no whole answer in time."""


class TooLongError(Exception):
    """The answer is longer than may be read."""


class Question:
    """What is asked, and how long.

    Python's own timeout is for each read: a server that sends a byte now and then would hold its
    client for ever. Here the connection is cut at the deadline, whatever is being waited for.
    """

    def __init__(
        self, address: str, body: bytes | None, timeout: float, tls: ssl.SSLContext | None = None
    ):
        """Asks nothing yet.

        Args:
            address: http:// or https://; proxies of the environment are used, as by urllib.
            body: JSON to POST; None for a GET.
            timeout: of everything, in seconds.
            tls: whom https trusts; None for those of this machine.
        """
        headers = {"Content-Type": "application/json"}
        self._request = urllib.request.Request(address, data=body, headers=headers)
        self._timeout, self._tls = timeout, tls
        self._end = 0.0
        self._lines: list[socket.socket] = []
        self._is_late = threading.Event()

    def ask(self, max_bytes: int) -> tuple[int, bytes]:
        """Returns status and body of the answer; of one other than 200 the beginning of the body.

        Args:
            max_bytes: of a body with status 200.

        Raises:
            TooLateError: if the whole answer is not there in time.
            TooLongError: if it has more than `max_bytes`.
            OSError, http.client.HTTPException, ValueError: if there is no answer, or it is not
                HTTP.
        """
        self._end = time.monotonic() + self._timeout
        watch = threading.Timer(self._timeout, self._cut)
        watch.daemon = True
        watch.start()
        try:
            found = self._answer(max_bytes)
        except (OSError, http.client.HTTPException, ValueError) as error:
            reason = getattr(error, "reason", error)
            if self._is_late.is_set() or isinstance(reason, TimeoutError):
                raise TooLateError from error
            raise
        finally:
            watch.cancel()
            for line in self._lines:
                line.close()
        if self._is_late.is_set():  # what was cut off may look like the end of an answer
            raise TooLateError
        return found

    def _answer(self, max_bytes: int) -> tuple[int, bytes]:
        opener = urllib.request.build_opener(
            _Handler(self._connect), _SecureHandler(self._connect, self._tls), _NoRedirects
        )
        try:
            with opener.open(self._request, timeout=self._timeout) as answer:
                return answer.status, _read(answer, max_bytes)
        except urllib.error.HTTPError as error:
            with error, contextlib.suppress(OSError, http.client.HTTPException):
                return error.code, error.read(_MAX_ERROR_BYTES)
            return error.code, b""

    def _cut(self) -> None:
        self._is_late.set()
        for line in self._lines:
            with contextlib.suppress(OSError):
                line.shutdown(socket.SHUT_RDWR)

    def _connect(self, address: tuple[str, int], *_, **__) -> socket.socket:
        """In place of `socket.create_connection`, whose timeout is for each address of a name."""
        problem: OSError = OSError(f"{address[0]} has no address")
        for family, kind, protocol, _, place in self._places(*address):
            line = socket.socket(family, kind, protocol)
            try:
                line.settimeout(max(self._end - time.monotonic(), 1e-3))
                line.connect(place)
            except OSError as error:
                line.close()
                problem = error
                continue
            # Another handle of the same connection: that of an encrypted one changes hands.
            self._lines.append(line.dup())
            if self._is_late.is_set():
                self._cut()
            return line
        raise problem

    def _places(self, host: str, port: int) -> list[tuple]:
        """What `getaddrinfo` finds, which takes no time limit."""
        found: list[Any] = []

        def look_up():
            try:
                found.append(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
            except (OSError, UnicodeError) as error:
                found.append(error)

        thread = threading.Thread(target=look_up, daemon=True)
        thread.start()
        thread.join(max(self._end - time.monotonic(), 0.0))
        if not found:
            raise TimeoutError(f"the name {host} was not found in time")
        if isinstance(found[0], Exception):
            raise OSError(str(found[0])) from found[0]
        return found[0]


def _read(answer: http.client.HTTPResponse, max_bytes: int) -> bytes:
    """The body. Raises TooLongError if it has more bytes, as soon as that is known."""
    if (answer.length or 0) > max_bytes:
        raise TooLongError
    body = bytearray()
    while chunk := answer.read(_CHUNK_BYTES):
        body += chunk
        if len(body) > max_bytes:
            raise TooLongError
    if answer.length:
        raise http.client.IncompleteRead(bytes(body[:0]), answer.length)
    return bytes(body)


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """TF Serving never sends elsewhere; what does is another server: its status is reported."""

    def redirect_request(self, *_) -> None:
        """Returns no other request."""


def _connection(kind: type, connect, *args, **kwargs):
    made = kind(*args, **kwargs)
    made._create_connection = connect
    return made


class _Handler(urllib.request.HTTPHandler):
    def __init__(self, connect):
        super().__init__()
        self._kind = functools.partial(_connection, http.client.HTTPConnection, connect)

    def http_open(self, request):
        return self.do_open(self._kind, request)


class _SecureHandler(urllib.request.HTTPSHandler):
    def __init__(self, connect, context: ssl.SSLContext | None):
        super().__init__(context=context)
        self._kind = functools.partial(_connection, http.client.HTTPSConnection, connect)

    def https_open(self, request):
        return self.do_open(self._kind, request, context=self._context)
