# SPDX-License-Identifier: Apache-2.0
"""Streams from servers on this machine, which break off and come back."""

import contextlib
import http.server
import itertools
import socket
import threading
import time

import numpy as np
import pytest

from object_detection_ext import errors
from object_detection_ext.inference import network_stream
from tests import numbered_videos

_FPS = 25


@pytest.fixture
def quick(monkeypatch):
    """Short waits."""
    monkeypatch.setattr(network_stream, "FIRST_WAIT_SECONDS", 0.02)
    monkeypatch.setattr(network_stream, "LONGEST_WAIT_SECONDS", 0.05)
    monkeypatch.setattr(network_stream, "_OPEN_SECONDS", 5.0)
    monkeypatch.setattr(network_stream, "_READ_SECONDS", 1.0)


@pytest.fixture
def transport_stream(tmp_path):
    numbered_videos.write(tmp_path / "v.ts", [i / _FPS for i in range(100)], gop=5)
    return (tmp_path / "v.ts").read_bytes()


@contextlib.contextmanager
def _http(handle):
    """Runs a server that answers with what `handle` writes; gives the address."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            handle(self)

        def log_message(self, *arguments):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield f"http://user:secret@127.0.0.1:{server.server_address[1]}/live.ts?token=hidden"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _live(handler, data):
    """Answers as a live source does: without a length."""
    handler.send_response(200)
    handler.send_header("Content-Type", "video/mp2t")
    handler.end_headers()
    handler.wfile.write(data)


def _frames(stream, count=None):
    frames = stream.frames(threading.Event())
    with contextlib.closing(frames):
        return list(itertools.islice(frames, count))


def test_live_stream_is_connected_again_and_time_goes_on(quick, transport_stream, capsys):
    requests = []

    def handle(handler):
        requests.append(time.monotonic())
        if len(requests) == 2:
            handler.send_error(503)
        else:
            _live(handler, transport_stream[: len(transport_stream) // 188 // 2 * 188])

    with _http(handle) as address:
        stream = network_stream.NetworkStream(address)
        assert not stream.is_file
        frames = _frames(stream, 70)
    seconds = [second for second, _ in frames]
    assert all(after > before for before, after in itertools.pairwise(seconds))
    numbers = [numbered_videos.read_number(frame) for _, frame in frames]
    begins = [i for i, number in enumerate(numbers) if number == 0]
    assert len(begins) == 2 and begins[0] == 0
    # Within a connection frames are as far apart as their timestamps say.
    steps = np.diff(seconds[: begins[1]])
    np.testing.assert_allclose(steps, 1 / _FPS, atol=1e-6)
    assert stream.reconnections == 1
    reported = capsys.readouterr().out
    assert "attempt 1 of 8 to connect again in 0.02 s" in reported
    assert "503" in reported or "5XX" in reported
    assert "attempt 2 of 8" in reported and "connected again (reconnection 1)" in reported
    assert "secret" not in reported and "hidden" not in reported


def test_stream_that_does_not_come_back_is_given_up(quick, transport_stream, capsys, monkeypatch):
    monkeypatch.setattr(network_stream, "MAX_ATTEMPTS", 3)
    requests = []

    def handle(handler):
        requests.append(time.monotonic())
        if len(requests) > 1:
            handler.send_error(404)
        else:
            _live(handler, transport_stream)

    with _http(handle) as address:
        stream = network_stream.NetworkStream(address)
        found = []
        with pytest.raises(errors.OutsideError, match="not restored in 3 attempts") as caught:
            for frame in stream.frames(threading.Event()):
                found.append(frame)
    assert len(found) > 90 and len(requests) == 4
    assert "secret" not in str(caught.value)
    assert capsys.readouterr().out.count("to connect again") == 3


def test_waits_double_up_to_a_limit(monkeypatch, transport_stream):
    monkeypatch.setattr(network_stream, "_OPEN_SECONDS", 1.0)
    waits = []

    class Stopped(threading.Event):
        def wait(self, timeout=None):
            waits.append(timeout)
            return False

    requests = []

    def handle(handler):
        requests.append(handler)
        if len(requests) > 1:
            handler.send_error(404)
        else:
            _live(handler, transport_stream)

    with _http(handle) as address:
        stream = network_stream.NetworkStream(address)
        with pytest.raises(errors.OutsideError):
            list(stream.frames(Stopped()))
    assert waits == [1, 2, 4, 8, 16, 30, 30, 30]


def test_file_on_a_server_has_an_end_and_all_keyframes(quick, tmp_path):
    path = tmp_path / "v.mp4"
    numbered_videos.write(path, [i / _FPS for i in range(100)],
                          container_options={"movflags": "faststart"})  # fmt: skip
    data = path.read_bytes()

    def handle(handler):
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        with contextlib.suppress(OSError):
            handler.wfile.write(data)

    options = {"num_frames": 4, "fps": 12.5, "every_seconds": 0.5}
    with _http(handle) as address:
        clips = list(network_stream.clips(address.replace("live.ts", "v.mp4"), **options))
    assert [clip.keyframe_time for clip in clips] == [i / 2 for i in range(8)]
    numbers = [[numbered_videos.read_number(frame) for frame in clip.frames] for clip in clips]
    assert numbers[1] == [8, 10, 12, 14]


def test_file_without_a_length_in_seconds_has_an_end_too(quick, transport_stream):
    requests = []

    def handle(handler):
        requests.append(handler)
        handler.send_response(200)
        handler.send_header("Content-Length", str(2 * len(transport_stream)))
        handler.end_headers()
        # At first a part of it. Its timestamps start over.
        sent = 2 * transport_stream
        handler.wfile.write(sent if len(requests) > 1 else sent[: len(sent) * 3 // 4])

    with _http(handle) as address:
        stream = network_stream.NetworkStream(address.replace("http", "HTTP"))
        assert stream.is_file
        frames = _frames(stream, 500)
    np.testing.assert_allclose([time for time, _ in frames], np.arange(200) / _FPS, atol=1e-6)
    numbers = [numbered_videos.read_number(frame) for _, frame in frames]
    assert numbers == 2 * list(range(100))
    assert len(requests) == 2 and stream.reconnections == 1


def test_udp(quick, transport_stream):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.bind(("127.0.0.1", 0))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        done = threading.Event()

        def send():
            while not done.is_set():
                for start in range(0, len(transport_stream), 7 * 188):
                    sender.sendto(transport_stream[start : start + 7 * 188], ("127.0.0.1", port))
                    if done.wait(0.001):
                        return

        thread = threading.Thread(target=send)
        thread.start()
        try:
            stream = network_stream.NetworkStream(f"udp://127.0.0.1:{port}")
            frames = _frames(stream, 150)
        finally:
            done.set()
            thread.join()
    assert not stream.is_file
    seconds = [second for second, _ in frames]
    assert all(after > before for before, after in itertools.pairwise(seconds))
    numbers = [numbered_videos.read_number(frame) for _, frame in frames]
    # The sender begins anew again and again, in one connection.
    assert stream.reconnections == 0
    assert sum(after == before + 1 for before, after in itertools.pairwise(numbers)) > 120


def test_silent_udp_is_told(quick, monkeypatch):
    monkeypatch.setattr(network_stream, "_OPEN_SECONDS", 0.3)
    with pytest.raises(errors.InputError, match=r"udp://127.0.0.1:9: cannot be opened.*in time"):
        network_stream.NetworkStream("udp://127.0.0.1:9")


class _Rtsp:
    """A server that plays a transport stream over RTSP (RFC 2326) and RTP (RFC 3550, 2250)."""

    def __init__(self, data):
        self._data, self._socket = data, socket.create_server(("127.0.0.1", 0))
        self.address = f"rtsp://127.0.0.1:{self._socket.getsockname()[1]}/camera"
        self.connections = 0
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self):
        self._socket.close()

    def _serve(self):
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._socket.accept()
                self.connections += 1
                with connection, contextlib.suppress(OSError):
                    self._answer(connection)

    def _answer(self, connection):
        requests = connection.makefile("rb")
        while True:
            lines = []
            while (line := requests.readline().decode().strip()) or not lines:
                if not line and not requests.peek(1):
                    return
                lines.append(line)
            method = lines[0].split()[0]
            sequence = next(line for line in lines if line.lower().startswith("cseq"))
            headers, body = [], ""
            if method == "OPTIONS":
                headers.append("Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN")
            elif method == "DESCRIBE":
                body = (
                    "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=camera\r\nt=0 0\r\n"
                    "m=video 0 RTP/AVP 33\r\nc=IN IP4 0.0.0.0\r\na=control:track\r\n"
                )
                headers += ["Content-Type: application/sdp", f"Content-Length: {len(body)}"]
            elif method == "SETUP":
                headers += ["Transport: RTP/AVP/TCP;unicast;interleaved=0-1", "Session: 1"]
            elif method == "PLAY":
                headers.append("Session: 1")
            head = "\r\n".join(["RTSP/1.0 200 OK", sequence, *headers])
            connection.sendall(f"{head}\r\n\r\n{body}".encode())
            if method == "PLAY":
                self._play(connection)
                return

    def _play(self, connection):
        size = 7 * 188
        for number, start in enumerate(range(0, len(self._data), size)):
            part = self._data[start : start + size]
            header = bytes([0x80, 33]) + number.to_bytes(2, "big")
            header += (number * 900).to_bytes(4, "big") + (1).to_bytes(4, "big")
            packet = header + part
            connection.sendall(b"$\0" + len(packet).to_bytes(2, "big") + packet)


def test_rtsp_with_reconnection(quick, transport_stream):
    server = _Rtsp(transport_stream)
    try:
        stream = network_stream.NetworkStream(server.address)
        frames = _frames(stream, 130)
    finally:
        server.close()
    numbers = [numbered_videos.read_number(frame) for _, frame in frames]
    assert stream.reconnections == 1 and server.connections == 2
    assert sum(after == before + 1 for before, after in itertools.pairwise(numbers)) > 120
    seconds = [second for second, _ in frames]
    assert all(after > before for before, after in itertools.pairwise(seconds))


def test_no_server(quick):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://user:secret@127.0.0.1:{free.getsockname()[1]}/live?key=hidden"
    with pytest.raises(errors.InputError, match="cannot be opened as a stream") as caught:
        network_stream.NetworkStream(address)
    assert "secret" not in str(caught.value) and "hidden" not in str(caught.value)


def test_names_of_streams():
    assert network_stream.name_of("rtsp://u:p@cam.local:554/a/b?x=1") == "stream_cam.local_554_a_b"
    assert network_stream.shown("rtsp://u:p@cam.local:554/a?x=1") == "rtsp://cam.local:554/a"
    addresses = ("RTSP://c/a", "http://c", "https://c", "udp://@:1234", "rtmp://c/a")
    assert all(map(network_stream.is_address, addresses))
    others = ("v.mp4", "gs://bucket/v.mp4", "C:/v.mp4", "0", "rtsp", 0, None)
    assert not any(map(network_stream.is_address, others))
