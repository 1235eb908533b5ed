"""Cameras and streams that are lost and come back, with real servers on localhost."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import socket
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.app.rtsp import free_port, rtsp_server
from tests.app.waiting import LONG, soon
from tutelage.app.sources import live
from tutelage.app.sources.by_uri import open_source
from tutelage.app.sources.frames import CameraError, Frame, SourceError
from tutelage.app.sources.mjpeg import MjpegSource


def _jpeg(value: int) -> bytes:
    noise = np.random.default_rng(value).integers(0, 8, (48, 64, 3))
    return cv2.imencode(".jpg", (noise + value).astype(np.uint8))[1].tobytes()


class Server:
    """An MJPEG camera over HTTP whose frames and failures a test controls."""

    def __init__(self, port: int = 0) -> None:
        self.frames_per_answer = 10_000
        self.pause = 0.002
        self.spoil: Callable[[int, bytes], bytes] = lambda number, jpeg: jpeg
        self.password: str | None = None
        self.stalls_after: int | None = None
        self.requests = 0
        self.text_only = False
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.requests += 1
                server._answer(self)

            def log_message(self, *arguments: object) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._http.daemon_threads = True
        self._closing = False
        self._connections: list[socket.socket] = []
        self.port = self._http.server_port
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.05,))
        self._thread.start()

    def url(self, path: str = "/video", who: str = "") -> str:
        return f"http://{who}127.0.0.1:{self.port}{path}"

    def _answer(self, handler: BaseHTTPRequestHandler) -> None:
        wanted = self.password and base64.b64encode(self.password.encode()).decode()
        if wanted and handler.headers.get("Authorization") != f"Basic {wanted}":
            handler.send_response(401)
            handler.send_header("WWW-Authenticate", 'Basic realm="camera"')
            handler.end_headers()
            return
        if handler.path == "/text" or self.text_only:
            handler.send_response(200)
            handler.send_header("Content-Type", "text/html; charset=utf-8")
            handler.end_headers()
            return
        if handler.path == "/away":
            handler.send_response(302)
            handler.send_header("Location", "file:///etc/passwd")
            handler.end_headers()
            return
        self._connections.append(handler.connection)
        handler.send_response(200)
        handler.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        handler.end_headers()
        with contextlib.suppress(OSError):
            self._stream(handler)

    def _stream(self, handler: BaseHTTPRequestHandler) -> None:
        for number in range(self.frames_per_answer):
            while self.stalls_after == number and not self._closing:
                time.sleep(0.02)
            if self._closing:
                return
            jpeg = self.spoil(number, _jpeg(10 * (number % 20)))
            head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
            handler.wfile.write(head.encode() + jpeg + b"\r\n")
            time.sleep(self.pause)

    def die(self) -> None:
        """Disappear like an unplugged camera: connections are reset, and the port is closed."""
        self._closing = True
        self._http.shutdown()
        self._http.server_close()
        for connection in self._connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self._thread.join()


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    if not server._closing:
        server.die()


def _take(source: live.LiveSource, count: int) -> list[Frame]:
    frames = iter(source)
    taken = [next(frames) for _ in range(count)]
    source.close()
    return taken


def test_an_mjpeg_stream(server: Server) -> None:
    source = open_source(server.url("/video?user=me"))
    assert isinstance(source, MjpegSource) and source.live
    assert source.name == server.url()  # what the query hides is not shown
    frames = _take(source, 20)
    assert [frame.index for frame in frames] == list(range(20))
    assert frames[3].name == "video#000003"
    values = [frame.decode().mean() for frame in frames if frame.decode]
    np.testing.assert_allclose(values, [10 * n + 3.5 for n in range(20)], atol=3)


def test_corrupt_frames_are_reported_and_the_others_processed(server: Server) -> None:
    server.spoil = lambda number, jpeg: jpeg[:-40] if number % 3 == 1 else jpeg
    frames = _take(MjpegSource(server.url(), 0.0), 12)
    errors: list[str | None] = []
    for frame in frames:
        assert frame.decode is not None
        try:
            frame.decode()
            errors.append(None)
        except ValueError as error:
            errors.append(str(error))
    assert errors == [None, "image file is cut off", None] * 4


def test_a_server_that_dies_and_comes_back(
    server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    source = MjpegSource(server.url(), reconnect=LONG)
    frames = iter(source)
    for _ in range(5):
        next(frames)
    server.die()
    again: list[Server] = []

    def come_back() -> None:
        assert soon(lambda: source.report()["lost"] == 1)
        again.append(Server(server.port))

    thread = threading.Thread(target=come_back)
    thread.start()
    seen = [next(frames) for _ in range(200)]
    thread.join()
    source.close()
    again[0].die()
    indices = [frame.index for frame in seen]
    assert indices == list(range(5, 205))  # the count continues without repetitions or gaps
    report = source.report()
    assert report["lost"] == 1 and report["lost_seconds"] > 0
    errors = capsys.readouterr().err
    assert "gives no more images after" in errors and "is back after" in errors


def test_a_server_that_stays_away(server: Server) -> None:
    source = MjpegSource(server.url(), reconnect=0.5)
    frames = iter(source)
    next(frames)
    server.die()
    with pytest.raises(
        CameraError, match=r"did not come back in 0\.5 s; cannot be reached: .*refused"
    ):
        list(frames)


def test_without_reconnection_it_ends_immediately(server: Server) -> None:
    server.frames_per_answer = 3
    with pytest.raises(CameraError, match="gives no more images after 3; the server ended"):
        list(MjpegSource(server.url(), reconnect=0.0))


def test_a_lost_stream_must_return_as_a_stream(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "_PAUSES", (0.05,))
    server.frames_per_answer = 3
    source = MjpegSource(server.url(), reconnect=0.6)
    frames = iter(source)
    for _ in range(3):
        next(frames)
    server.text_only = True  # as from a proxy whose camera is gone
    with pytest.raises(CameraError, match=r"did not come back in 0\.6 s; now gives text/html"):
        list(frames)
    assert source.report()["lost"] == 1 and server.requests > 1


def test_a_run_on_a_stream_that_ends(server: Server, repo_root: Path) -> None:
    pytest.importorskip("google.protobuf", reason="needs the emulation's packages")
    server.frames_per_answer = 20
    command = [sys.executable, str(repo_root / "app" / "classify.py"), "--quiet"]
    done = subprocess.run(
        [*command, "--source", server.url(), "--reconnect", "0"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "stopped by an error" in done.stdout and "frames     20 in" in done.stdout


def test_a_stream_that_falls_silent_is_lost(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "SILENCE_SECONDS", 0.3)
    server.stalls_after = 4
    source = MjpegSource(server.url(), reconnect=10.0)
    frames = _take(source, 9)  # the second answer stalls again, after four more
    assert [frame.index for frame in frames[:8]] == list(range(8))
    assert server.requests >= 3 and source.report()["lost"] >= 2


def test_bytes_without_an_image_are_not_a_stream(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "IMAGE_SECONDS", 0.2)
    server.spoil = lambda number, jpeg: jpeg if number < 3 else b"no image"
    with pytest.raises(CameraError, match=r"images after 3; the server sent no complete image for"):
        list(MjpegSource(server.url(), reconnect=0.0))


def test_an_answer_that_does_not_begin_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Single bytes of the head keep arriving, so that no single read times out."""
    monkeypatch.setattr(live, "IMAGE_SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def trickle() -> None:
            connection, _ = listener.accept()
            with connection, contextlib.suppress(OSError):
                connection.sendall(b"HTTP/1.1 200 OK\r\nX: ")
                while True:
                    connection.sendall(b"x")
                    time.sleep(0.01)

        threading.Thread(target=trickle, daemon=True).start()
        late = r"cannot be reached: .*no complete answer within 0\.3 s"
        with pytest.raises(CameraError, match=late):
            MjpegSource(f"http://127.0.0.1:{listener.getsockname()[1]}/", reconnect=0.0)


def test_closing_ends_a_reading_that_waits(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "SILENCE_SECONDS", 10 * LONG)
    server.stalls_after = 1
    source = MjpegSource(server.url(), reconnect=10 * LONG)
    frames = iter(source)
    next(frames)
    rest: list[Frame] = []
    reader = threading.Thread(target=lambda: rest.extend(frames), daemon=True)
    reader.start()
    source.close()
    reader.join(LONG)
    assert not reader.is_alive() and rest == []


def test_user_and_password_of_the_url_are_used_and_not_shown(server: Server) -> None:
    server.password = "me:sec ret"
    with pytest.raises(CameraError, match="the server answers 401"):
        open_source(server.url())
    source = open_source(server.url(who="me:sec%20ret@"))
    assert "sec" not in source.name
    assert isinstance(source, MjpegSource)
    _take(source, 2)


@pytest.mark.usefixtures("emulation")
def test_a_source_of_the_environment_is_shown_to_nobody(
    server: Server, repo_root: Path, tmp_path: Path
) -> None:
    """All users see a password on a command line, and child processes inherit the environment."""
    server.password, token = "me:s3cret", "0123456789-abcdefghij"
    spy = tmp_path / "ffmpeg"
    spy.write_text(f"#!/bin/sh\nenv >> {tmp_path}/inherited\nexit 1\n")
    spy.chmod(0o755)
    environment = {
        **os.environ,
        "TUTELAGE_SOURCE": server.url(who="me:s3cret@"),
        "TUTELAGE_WEB_TOKEN": token,
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
    }
    command = [sys.executable, str(repo_root / "app/classify.py"), "--frames", "3", "--quiet"]
    command += ["--output", f"{tmp_path}/seen.mp4", "--json", f"{tmp_path}/figures.json"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    figures = (tmp_path / "figures.json").read_text()
    assert json.loads(figures)["source"] == server.url()
    inherited = (tmp_path / "inherited").read_text()
    for text in (done.stdout, done.stderr, figures, inherited):
        assert "s3cret" not in text and token not in text


def test_an_invalid_video_is_reported(server: Server) -> None:
    with pytest.raises(SourceError, match="gives text/html, not a video"):
        open_source(server.url("/text"))
    with pytest.raises(CameraError):  # a redirect does not lead to files of this machine
        open_source(server.url("/away"))
    server.die()
    with pytest.raises(CameraError, match=r"cannot be reached: .*refused"):
        open_source(server.url())


def test_a_video_by_its_url(tmp_path: Path) -> None:
    writer = cv2.VideoWriter(str(tmp_path / "a.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 48))
    for number in range(8):
        writer.write(np.full((48, 64, 3), 10 * number, np.uint8))
    writer.release()
    command = ["python3", "-m", "http.server", "--bind", "127.0.0.1", "0"]
    with subprocess.Popen(
        [command[0], "-u", *command[1:]],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdout is not None
        port = process.stdout.readline().split("port ")[1].split()[0]
        source = open_source(f"http://127.0.0.1:{port}/a.avi")
        assert not source.live and len(list(source)) == 8
        source.close()
        process.terminate()


@pytest.mark.skipif(not shutil.which("ffmpeg"), reason="needs ffmpeg")
def test_ffmpeg_streams_jpegs_over_http() -> None:
    """Use a real encoder: `ffmpeg -listen 1` serves MJPEG in FFmpeg's multipart form."""
    url = f"http://127.0.0.1:{free_port()}/live.mjpg"
    command = (
        "ffmpeg -loglevel error -re -f lavfi -i testsrc=size=160x120:rate=25:duration=20 "
        f"-content_type multipart/x-mixed-replace -f mpjpeg -listen 1 {url}"
    )
    with subprocess.Popen(command.split(), stderr=subprocess.DEVNULL) as process:
        source = _open_when_up(url)
        frames = _take(source, 10)
        assert all(f.decode and f.decode().shape == (120, 160, 3) for f in frames)
        process.kill()


def _open_when_up(url: str) -> MjpegSource:
    deadline = time.monotonic() + LONG
    while True:
        try:
            return MjpegSource(url, 0.0)
        except CameraError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def test_an_rtsp_server_that_is_not_there() -> None:
    with pytest.raises(CameraError, match=r"rtsp://127\.0\.0\.1:9/x: cannot be reached: .*refused"):
        open_source("rtsp://me:secret@127.0.0.1:9/x?y=z")


@pytest.mark.parametrize(
    ("answer", "who", "reason"),
    [
        (b"RTSP/1.0 404 Not Found\r\n\r\n", "", "the server answers 404 Not Found"),
        (b"RTSP/1.0 401 Unauthorized\r\n\r\n", "", "the server asks for a user and a password"),
        (b"RTSP/1.0 401 Unauthorized\r\n\r\n", "me:no@", "does not accept this user and password"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "", "does not answer as an RTSP server"),
    ],
)
def test_an_rtsp_server_that_refuses_says_why(answer: bytes, who: str, reason: str) -> None:
    asked: list[bytes] = []

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            asked.append(self.request.recv(4096))
            self.request.sendall(answer)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            with pytest.raises(CameraError, match=reason) as caught:
                open_source(f"rtsp://{who}127.0.0.1:{server.server_address[1]}/live")
        finally:
            server.shutdown()
            thread.join()
    assert "me:no" not in str(caught.value) and b"me:no" not in asked[-1]


def test_an_rtsp_stream_that_dies_and_comes_back() -> None:
    port = free_port()
    with rtsp_server(port):
        source = open_source(f"rtsp://me:secret@127.0.0.1:{port}/live", reconnect=30.0)
        assert source.live and source.name == f"rtsp://127.0.0.1:{port}/live"
        frames = iter(source)
        first = [next(frames) for _ in range(10)]
        assert all(f.image is not None and f.image.shape == (120, 160, 3) for f in first)
        # Seven vertical bars of full colour show that the pictures are complete, not grey.
        assert first[-1].image is not None and first[-1].image[40].std() > 60
    with rtsp_server(port):
        again = [next(frames) for _ in range(40)]
        source.close()
    assert [frame.index for frame in (*first, *again)] == list(range(50))
    assert source.report()["lost"] == 1
