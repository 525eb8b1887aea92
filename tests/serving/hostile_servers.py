# SPDX-License-Identifier: Apache-2.0
"""Servers on real sockets that answer whatever a test wants, whole or in drops."""

import concurrent.futures
import contextlib
import socket
import threading
from collections.abc import Callable, Iterator

import grpc

Script = Callable[[socket.socket], None]


def raw_server(script: Script) -> contextlib.AbstractContextManager[str]:
    """While it lasts, each connection to HOST:PORT is given to the script once it has asked."""

    def after_the_question(line):
        _read_request(line)
        script(line)

    return raw_server_at_once(after_the_question)


@contextlib.contextmanager
def raw_server_at_once(script: Script) -> Iterator[str]:
    """While it lasts, each connection to HOST:PORT is given to the script."""
    listener = socket.create_server(("localhost", 0))
    ended = threading.Event()

    def serve():
        while not ended.is_set():
            try:
                line, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=answer, args=(line,), daemon=True).start()

    def answer(line):
        with line, contextlib.suppress(OSError, ValueError):
            script(line)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"localhost:{listener.getsockname()[1]}"
    finally:
        ended.set()
        # A blocked accept holds the socket open: it is woken.
        with contextlib.suppress(OSError):
            socket.create_connection(listener.getsockname()[:2], timeout=1).close()
        listener.close()
        thread.join(5)


def _read_request(line: socket.socket) -> None:
    text = b""
    while b"\r\n\r\n" not in text:
        more = line.recv(65536)
        if not more:
            raise ValueError("no request")
        text += more
    head, _, body = text.partition(b"\r\n\r\n")
    for field in head.split(b"\r\n"):
        if field.lower().startswith(b"content-length:"):
            left = int(field.split(b":")[1]) - len(body)
            while left > 0:
                left -= len(line.recv(65536))


def http_answer(body: bytes, status: str = "200 OK", *fields: str) -> bytes:
    """A well-formed answer."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close", *fields]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


class _Anything(grpc.GenericRpcHandler):
    """Answers every method with the same bytes."""

    def __init__(self, answer: Callable[[], bytes]):
        self._answer = answer

    def service(self, handler_call_details):
        return grpc.unary_unary_rpc_method_handler(lambda request, context: self._answer())


@contextlib.contextmanager
def grpc_server(answer: Callable[[], bytes], compression=None) -> Iterator[str]:
    """While it lasts, each question to HOST:PORT is answered with these bytes as its message."""
    server = grpc.server(
        concurrent.futures.ThreadPoolExecutor(2),
        options=[("grpc.max_send_message_length", -1)],
        compression=compression,
    )
    server.add_generic_rpc_handlers((_Anything(answer),))
    port = server.add_insecure_port("localhost:0")
    server.start()
    try:
        yield f"localhost:{port}"
    finally:
        server.stop(None)
