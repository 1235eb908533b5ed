"""The live page's server, over real HTTP."""

from __future__ import annotations

import asyncio
import csv
import io
import itertools
import json
import math
import os
import re
import resource
import socket
import stat
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import cv2
import numpy as np
import pytest

pytest.importorskip("starlette", reason="the live page needs Starlette and uvicorn")
pytest.importorskip("uvicorn", reason="the live page needs Starlette and uvicorn")

from tests.app.waiting import LONG, soon
from tests.app.web_results import (
    FACTS,
    Feeder,
    ask,
    ask_json,
    gauges,
    image,
    labelled,
    result,
    served,
)
from tutelage.app.outputs.output import OutputError
from tutelage.app.pipeline.result import Result
from tutelage.app.sources.frames import Frame
from tutelage.app.web import WebOutput, connections, find_token, needs_token, parse_address
from tutelage.app.web import live_video as video_module
from tutelage.app.web import monitor as monitor_module
from tutelage.app.web import recordings as recordings_module
from tutelage.app.web import tally as tally_module
from tutelage.app.web.address import reachable_host
from tutelage.app.web.connections import MOST_UNKNOWN
from tutelage.app.web.live_video import Video, encode
from tutelage.app.web.monitor import Monitor
from tutelage.app.web.recordings import MOST_RECORDINGS
from tutelage.app.web.rows import read_gauges
from tutelage.app.web.tally import MOST_CLASSES, Confusion

POST = {"X-Tutelage": "1"}


@pytest.fixture(scope="module")
def output() -> Iterator[WebOutput]:
    """Serve a page for tests that do not change it."""
    with served(length=1000) as web:
        for index in range(5):
            web.add(result(index))
        yield web


def _port(output: WebOutput) -> int:
    port = urlsplit(output.url).port
    assert port
    return port


def _open(output: WebOutput, path: str) -> socket.socket:
    """Send a request and return the connection, unread."""
    connection = socket.create_connection(("127.0.0.1", _port(output)), timeout=5)
    connection.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
    return connection


def _events(output: WebOutput, wanted: int) -> list[tuple[str, Any]]:
    """Return the first server-sent events, names and data."""
    found: list[tuple[str, Any]] = []
    with urllib.request.urlopen(output.url + "events", timeout=5) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        while len(found) < wanted and (name := answer.readline()):
            found.append((name[7:-1].decode(), json.loads(answer.readline()[6:])))
            answer.readline()
    return found


def test_names_that_are_not_utf8_are_served() -> None:
    name = "caf\udce9"  # as os.fsdecode gives the Latin-1 bytes of a directory's name
    with served(facts={"model": {"name": name}}, gauges=lambda: {"watts": {name: 1.0}}) as web:
        web._monitor.stop_recording(web._monitor.start_recording())
        web._monitor.tick()
        assert ask_json(web, "/state.json")["facts"]["model"]["name"] == name
        for path in ("/recordings", "/recordings/1.json", "/recordings/1.csv"):
            assert ask(web, path)[0] == 200
        rows = [data for kind, data in _events(web, 1) if kind == "row"]
        assert rows[0]["watts"] == {name: 1.0}


# Addresses


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("", ("127.0.0.1", 8080)),
        ("9000", ("127.0.0.1", 9000)),
        (":9000", ("127.0.0.1", 9000)),
        ("zcu104.local", ("zcu104.local", 8080)),
        ("0.0.0.0:80", ("0.0.0.0", 80)),
        ("[::1]:8081", ("::1", 8081)),
        ("[::]", ("::", 8080)),
        ("localhost:0", ("localhost", 0)),
        ("zcu104:", ("zcu104", 8080)),
    ],
)
def test_addresses(text: str, address: tuple[str, int]) -> None:
    assert parse_address(text) == address


@pytest.mark.parametrize(
    "text", ["65536", ":x", "::1", "[::1", "[localhost]:1", "http://a:1", "a:b:c", "a:²"]
)
def test_wrong_addresses_are_reported_in_one_line(text: str) -> None:
    with pytest.raises(ValueError, match=re.escape(text)) as caught:
        parse_address(text)
    assert "\n" not in str(caught.value)


def test_only_loopback_needs_no_token() -> None:
    assert not any(map(needs_token, ["localhost", "LOCALHOST", "127.0.0.1", "127.8.9.1", "::1"]))
    assert all(map(needs_token, ["0.0.0.0", "::", "192.168.1.2", "zcu104", "localhost.evil.com"]))


def test_url_of_any_host_names_this_machine() -> None:
    assert reachable_host("0.0.0.0") not in ("0.0.0.0", "")
    assert reachable_host("::1") == "[::1]"


def test_a_port_in_use_is_one_clear_line(output: WebOutput) -> None:
    line = rf"^--web 127.0.0.1:{_port(output)}: Address .* in use; choose another port, or 0 .*$"
    with pytest.raises(OutputError, match=line):
        WebOutput("127.0.0.1", _port(output), None, FACTS, gauges, None)
    with pytest.raises(OutputError, match=r"^--web no.such.host.invalid:1: [^\n]*$"):
        WebOutput("no.such.host.invalid", 1, None, FACTS, gauges, None)


# Access


def test_the_token_is_needed_everywhere() -> None:
    with served(token="se cret+é") as web:
        for path in ("/", "/state.json", "/video", "/events", "/static/page.js", "/nothing"):
            status, headers, body = ask(web, path)
            assert (status, headers["content-type"]) == (401, "text/plain; charset=utf-8")
            assert body.count(b"\n") == 1
        assert ask(web, "/recordings", "POST", POST)[0] == 401
        assert ask(web, "/?token=wrong")[0] == 401
        assert ask(web, "/", headers={"Authorization": "Bearer wrong"})[0] == 401


def test_the_token_goes_from_the_url_into_a_cookie() -> None:
    with served(token="se cret+é") as web:
        query = urlsplit(web.url).query
        status, headers, _ = ask(web, f"//evil.example/x?a=1&{query}")
        assert (status, headers["location"]) == (303, "/evil.example/x?a=1")
        assert {"HttpOnly", "SameSite=lax"} < set(headers["set-cookie"].split("; "))
        cookie = headers["set-cookie"].split(";")[0]
        assert ask(web, "/state.json", headers={"Cookie": cookie})[0] == 200
        assert ask(web, "/recordings", "POST", {"Cookie": cookie, **POST})[0] == 201
    with served(token="plain") as web:
        assert ask(web, "/state.json", headers={"Authorization": "Bearer plain"})[0] == 200


def test_foreign_host_names_are_refused_on_loopback(output: WebOutput) -> None:
    for host in ("evil.example", "evil.example:8080", "127.0.0.1.evil.example", "", "e@localhost"):
        assert ask(output, "/state.json", headers={"Host": host})[0] == 400
    for host in ("localhost", "LocalHost:1", "127.0.0.1:5", "[::1]:5"):
        assert ask(output, "/state.json", headers={"Host": host})[0] == 200


def test_only_the_page_itself_may_change_something(output: WebOutput) -> None:
    origin = f"http://127.0.0.1:{_port(output)}"
    refused: list[dict[str, str]] = [
        {},
        {"X-Tutelage": "0"},
        {**POST, "Origin": "http://evil.example"},
        {**POST, "Origin": "null"},
        {**POST, "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"},
        {**POST, "Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "navigate"},
    ]
    for headers in refused:
        assert ask(output, "/recordings", "POST", headers)[0] == 403
    assert ask_json(output, "/recordings") == []
    assert ask(output, "/recordings/9/stop", "POST", {**POST, "Origin": origin})[0] == 404
    assert ask(output, "/snapshot.jpg", headers={"Sec-Fetch-Site": "same-site"})[0] == 403
    link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    assert ask(output, "/", headers={**link, "Sec-Fetch-Dest": "document"})[0] == 200
    assert ask(output, "/", headers={**link, "Sec-Fetch-Dest": "iframe"})[0] == 403


def test_every_answer_has_the_security_headers(output: WebOutput) -> None:
    for path in ("/", "/static/page.js", "/state.json", "/nothing", "/snapshot.jpg"):
        _, headers, _ = ask(output, path)
        assert headers["content-security-policy"].startswith("default-src 'self'; img-src")
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cache-control"] == ("no-cache" if "static" in path else "no-store")
    assert ask(output, "/static/../output.py")[0] == 404
    assert ask(output, "/static/%2e%2e/output.py")[0] == 404


# Idle connections


def _idle(web: WebOutput, count: int) -> list[socket.socket]:
    """Open connections that send nothing, or an endless header."""
    found = []
    for number in range(count):
        found.append(socket.create_connection(("127.0.0.1", _port(web)), timeout=20))
        if number % 2:
            found[-1].sendall(b"GET / HTTP/1.1\r\nHost: x\r\nX-a: ")
    return found


@pytest.mark.slow
def test_idle_connections_do_not_take_the_places_of_readers() -> None:
    key = {"Authorization": "Bearer key of a service"}
    with served(token="key of a service") as web:
        request = urllib.request.Request(web.address + "events", headers=key)
        with urllib.request.urlopen(request, timeout=20) as before:
            idle = _idle(web, 200)
            for _ in range(3):
                assert ask(web, "/state.json", headers=key)[0] == 200
            web._monitor.tick()
            assert before.readline().startswith(b"event: ")  # it was not closed
            connections = web._server._uvicorn.server_state.connections
            assert soon(lambda: len(connections) <= MOST_UNKNOWN + 2)
            assert ask(web, "/state.json")[0] == 401
        for each in idle:
            each.close()


def test_one_of_many_simultaneous_readers_is_answered() -> None:
    with served(token="key of a service") as web:
        loop, go_on = web._server._loop, threading.Event()
        assert loop is not None
        loop.call_soon_threadsafe(go_on.wait, LONG)
        with socket.create_connection(("127.0.0.1", _port(web)), timeout=20) as reader:
            query = "/state.json?token=key+of+a+service"
            reader.sendall(f"GET {query} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
            flood = [socket.socket() for _ in range(400)]
            for each in flood:
                each.setblocking(False)
                each.connect_ex(("127.0.0.1", _port(web)))
            go_on.set()
            assert reader.recv(12) == b"HTTP/1.1 303"
        for each in flood:
            each.close()


def test_a_connection_without_a_whole_request_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "REQUEST_SECONDS", 0.3)
    with served() as web:
        idle = _idle(web, 6)
        body, again = _idle(web, 1)[0], _open(web, "/snapshot.jpg")
        # The answer comes immediately, without waiting for the rest of the request.
        body.sendall(
            b"POST /recordings HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 9999\r\n\r\n"
        )
        for each in (*idle, body, again):
            _trickle(each)
        assert soon(lambda: not web._server._uvicorn.server_state.connections)


def _trickle(connection: socket.socket) -> None:
    """Read to the end, sending a byte occasionally; fail if there is no end."""
    connection.settimeout(0.05)
    for _ in range(400):
        try:
            if not connection.recv(1 << 16):
                break
        except TimeoutError:
            connection.sendall(b"x")
        except ConnectionError:
            break
    else:
        pytest.fail("the connection stays")
    connection.close()


def test_readers_have_a_limit_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "MOST_READERS", 3)
    with served() as web:
        readers = [_open(web, "/events") for _ in range(3)]
        for reader in readers:
            assert reader.recv(12) == b"HTTP/1.1 200"
        assert ask(web, "/state.json")[0] == 503
        readers.pop().close()
        assert soon(lambda: ask(web, "/state.json")[0] == 200)
        for reader in readers:
            reader.close()


# The token of a service


def test_a_token_is_made_once_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "token"
    made = find_token("0.0.0.0", path)
    assert made is not None and not made.shown and len(made.text) >= 20
    assert stat.S_IMODE(path.stat().st_mode) == 0o600 and path.read_text() == made.text + "\n"
    assert find_token("127.0.0.1", path) == made  # requested, so needed on loopback too


@pytest.mark.parametrize("mode", [0o644, 0o602, 0o620, 0o604])
def test_a_token_that_others_can_read_or_replace_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "token"
    path.write_text("0123456789abcdef0123\n")
    path.chmod(mode)
    with pytest.raises(OutputError, match=r"others can read or replace it; try: chmod 600 .*token"):
        find_token("0.0.0.0", path)
    path.chmod(0o640)  # a service's group may read root's file
    assert find_token("0.0.0.0", path) == ("0123456789abcdef0123", False)


@pytest.mark.parametrize(
    "text", ["", "short", "x" * 257, "0123456789 abcdefgh", "0123456789abcdé€"]
)
def test_an_invalid_token_is_rejected(tmp_path: Path, text: str) -> None:
    path = tmp_path / "token"
    path.write_text(text)
    path.chmod(0o600)
    with pytest.raises(OutputError, match=r"token.*: a token ") as caught:
        find_token("0.0.0.0", path)
    assert text not in str(caught.value) or not text
    with pytest.raises(OutputError, match=r"^TUTELAGE_WEB_TOKEN: a token "):
        find_token("0.0.0.0", None, text)


def test_token_files_that_are_none(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)
    for path, reason in (
        (tmp_path / "pipe", "not a regular file"),
        (tmp_path, "not a regular file"),
        (tmp_path / "none" / "token", "No such file or directory"),
    ):
        with pytest.raises(OutputError, match=reason):
            find_token("0.0.0.0", path)


def test_the_token_of_the_environment() -> None:
    assert find_token("127.0.0.1", None) is None
    made = find_token("0.0.0.0", None)
    assert made is not None and made.shown and made != find_token("0.0.0.0", None)
    assert find_token("127.0.0.1", None, "0123456789abcdef") == ("0123456789abcdef", False)


# Results and rows


def test_state_and_events(output: WebOutput) -> None:
    events = _events(output, 3)
    assert {name for name, _ in events} == {"label", "row"}
    label = next(data for name, data in events if name == "label")
    assert label["top"][0] == ["Ankle boot", round(result(4).top[0][1], 6)]
    assert (label["number"], label["name"]) == (5, "photos/00004.png")
    rows = [data for name, data in events if name == "row"]
    first = rows[0]
    assert (first["frames"], first["failed"], first["length"]) == (5, 0, 1000)
    assert first["watts"] == {"VCCINT": 3.2, "VCCAUX": 0.9} and first["dropped"] == 3
    assert first["queues"] == {"waiting": 1, "in_flight": 4, "done": 0}
    state = ask_json(output, "/state.json")
    assert state["facts"] == FACTS and state["recordings"] == []
    assert [row["number"] for row in state["history"]] == [*range(1, len(state["history"]) + 1)]
    assert state["row"] == state["history"][-1]


def test_rows_are_of_their_own_second() -> None:
    monitor = Monitor(dict, None)
    for index in range(200):
        monitor.add(result(index))
    monitor.add(result(200, error="image file is cut off"))
    time.sleep(0.02)
    monitor.tick()
    monitor.tick()
    full, empty = monitor.rows()
    times = sorted(result(index).milliseconds["total"] for index in range(200))
    for percent in (50, 90, 99):
        assert full[f"p{percent}_ms"] == pytest.approx(times[percent * 2 - 1], abs=1e-4)
    assert (full["frames"], full["failed"]) == (201, 1) and full["fps"] > 0
    assert (empty["frames"], empty["fps"], empty["p50_ms"]) == (201, 0.0, None)
    assert empty["watts"] is None and empty["dropped"] is None
    for _ in range(400):
        monitor.tick()
    assert len(monitor.rows()) == 300


def test_a_row_has_the_most_frequent_label_of_its_second() -> None:
    monitor = Monitor(gauges, None)
    monitor.add(result(0, error="image file is cut off"))
    for index, label in enumerate(["Bag", "Sandal", "Bag", "Sandal", "Bag"]):
        monitor.add(labelled(label, label, index))
    monitor.tick()
    monitor.add(Result(Frame(6, "6.png", image(6)), [("Coat", math.nan)]))
    monitor.tick()
    monitor.add(result(7, "x" * 500))
    monitor.tick()
    monitor.tick()
    labels = [(row["label"], row["confidence"]) for row in monitor.rows()]
    assert labels[:2] == [("Bag", 0.9), ("Coat", None)]
    assert len(labels[2][0]) == 100 and labels[3] == (None, None)


def test_the_confusion_matrix_counts_true_and_found_labels() -> None:
    monitor = Monitor(dict, None)
    monitor.add(result(0))  # without a true label
    monitor.tick()
    assert monitor.confusion() is None
    for true, found in [("Shirt", "Coat"), ("Shirt", "Shirt"), ("Coat", "Coat"), ("Bag", "Bag")]:
        monitor.add(labelled(true, found))
    monitor.add(labelled("Shirt", "Coat"))
    failed = result(0, error="image file is cut off")
    failed.true_label = "Shirt"
    monitor.add(failed)
    monitor.tick()
    report = monitor.confusion()
    assert report == {
        "labelled": 5,
        "correct": 3,
        "classes": 3,
        "labels": ["Bag", "Coat", "Shirt"],
        "counts": [[1, 0, 0], [0, 1, 0], [0, 2, 1]],
    }
    assert (monitor.rows()[-1]["labelled"], monitor.rows()[-1]["correct"]) == (5, 3)
    monitor.add(labelled("Bag", "Bag"))
    assert monitor.confusion() is report  # computed once per row
    monitor.tick()
    again = monitor.confusion()
    assert again is not None and again["counts"][0] == [2, 0, 0]


def test_no_answer_is_lost_where_many_come_in_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(monitor_module, "_MOST_ANSWERS", 10)
    monitor = Monitor(dict, None)
    for index in range(25):
        monitor.add(labelled("Bag", "Bag" if index < 20 else "Coat"))
    monitor.tick()
    row = monitor.rows()[-1]
    assert (row["labelled"], row["correct"], row["label"]) == (25, 20, "Coat")


def test_of_many_classes_the_most_confused_are_shown() -> None:
    confusion = Confusion()
    confusion.add([(str(number), (str(number), 0.9)) for number in range(100)])
    for number in range(60, 90):
        confusion.add([(str(number), ("7", 0.9))] * number)
    report = confusion.report()
    assert report is not None and report["classes"] == 100
    assert report["labels"] == ["7", *map(str, range(91 - MOST_CLASSES, 90))]
    assert report["counts"][0] == [1] + [0] * (MOST_CLASSES - 1)
    assert report["counts"][-1] == [89] + [0] * (MOST_CLASSES - 2) + [1]


def test_the_confusion_matrix_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tally_module, "_MOST_PAIRS", 3)
    confusion = Confusion()
    for number in range(50):
        confusion.add([("a", (f"{number % 5}", 0.9))])
    report = confusion.report()
    assert report is not None and report["labelled"] == 50
    assert report["labels"] == ["a", "0", "1", "2"] and report["counts"][0] == [0, 10, 10, 10]


def test_the_confusion_matrix_comes_with_the_rows() -> None:
    with served() as web:
        web.add(labelled("\u202eBag", "Coat"))
        events = dict(_events(web, 3))
        assert events["confusion"]["labels"] == ["Coat", r"\u202eBag"]
        assert ask_json(web, "/state.json")["confusion"] == events["confusion"]
        assert events["row"]["labelled"] == 1


def test_gauges_may_do_anything() -> None:
    def broken() -> dict[str, Any]:
        raise OSError("sensor is gone")

    strange = {
        "dropped": np.int64(4),
        "queues": 7,
        "dpu_utilisation": float("nan"),
        "cpu_percent": "many",
        "watts": {"12V": np.float32(2.5), "5V": None},
    }
    assert read_gauges(broken)["queues"] == {"waiting": None, "in_flight": None, "done": None}
    row = read_gauges(lambda: strange)
    assert (row["dropped"], row["watts"], row["dpu_utilisation"]) == (4, {"12V": 2.5}, None)
    assert row["cpu_percent"] is None and row["queues"]["done"] is None


def test_long_and_hostile_labels_and_facts_that_are_not_json() -> None:
    facts = {"scale": float("nan"), "made": time, "path": [1.5]}
    with served(facts=facts) as web:
        web.add(result(0, "x" * 5000))
        state = ask_json(web, "/state.json")
        assert state["facts"]["scale"] == "NaN" and state["facts"]["path"] == [1.5]
        assert len(state["label"]["top"][0][0]) == 300
        web.add(result(1, "\u202egnp\x1b[2J"))  # reverses the following text
        assert ask_json(web, "/state.json")["label"]["top"][0][0] == r"\u202egnp\x1b[2J"


# Video


def _decoded(jpeg: bytes) -> np.ndarray:
    decoded = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert decoded is not None
    return decoded


def _jpegs(connection: socket.socket, wanted: int) -> list[np.ndarray]:
    """Read images from a multipart stream."""
    stream = connection.makefile("rb")
    images: list[np.ndarray] = []
    while len(images) < wanted:
        line = stream.readline()
        assert line, "the stream ended"
        if line.lower().startswith(b"content-length:"):
            while stream.readline().strip():
                pass
            data = stream.read(int(line.split(b":")[1]))
            images.append(_decoded(data))
    return images


def test_the_video_shows_the_newest_images() -> None:
    with served() as web:
        assert ask(web, "/snapshot.jpg")[0] == 404
        feeder = Feeder(web, size=64)
        with feeder, _open(web, "/video") as one, _open(web, "/video") as other:
            began = time.monotonic()
            images = _jpegs(one, 8)
            assert time.monotonic() - began > 7 / 15 * 0.9
            assert all(each.shape == (320, 320, 3) for each in images)
            assert not np.array_equal(images[0], images[-1])
            assert len(_jpegs(other, 3)) == 3
        time.sleep(0.1)
        status, headers, body = ask(web, "/snapshot.jpg")
        assert (status, headers["content-type"]) == (200, "image/jpeg")
        assert body == encode(image(feeder.count - 1, 64))


def test_images_are_encoded_for_viewers_only_and_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video_module, "FRAME_SECONDS", 10 * LONG)
    with served() as web:
        video = web._server._page.video
        with Feeder(web) as feeder:
            assert soon(lambda: feeder.count > 20)
            assert video.encoded == 0
            first = ask(web, "/snapshot.jpg")[2]
            before = feeder.count
            assert soon(lambda: feeder.count > before + 20)
            with _open(web, "/video") as one, _open(web, "/video") as other:
                for viewer in (one, other):
                    np.testing.assert_array_equal(_jpegs(viewer, 1)[0], _decoded(first))
        assert video.encoded == 1


@pytest.mark.parametrize("looks", [150, 3000])
def test_fifteen_images_a_second_are_encoded(monkeypatch: pytest.MonkeyPatch, looks: int) -> None:
    """A viewer who is late at times does not get half the rate; many viewers cause no more work."""
    now = 0.0
    monkeypatch.setattr(video_module, "time", SimpleNamespace(monotonic=lambda: now))
    count = itertools.count(1)
    video = Video(lambda: (next(count), result(0)))

    async def look_for_ten_seconds() -> None:
        nonlocal now
        for number in range(looks):
            now = 10 * number / looks + 0.004 * (number % 2)
            await video._look()

    asyncio.run(look_for_ten_seconds())
    assert 148 <= video.encoded <= 151


def test_there_is_an_end_to_the_number_of_viewers() -> None:
    with served() as web, Feeder(web):
        viewers = [_open(web, "/video") for _ in range(8)]
        for viewer in viewers:
            _jpegs(viewer, 1)
        assert ask(web, "/video")[0] == 503
        viewers.pop().close()

        def has_a_place() -> bool:  # the server notices at its next send
            with _open(web, "/video") as again:
                return again.recv(12) == b"HTTP/1.1 200"

        assert soon(has_a_place)
        for viewer in viewers:
            viewer.close()


@pytest.mark.parametrize(
    ("shape", "shown"),
    [
        ((28, 28), (308, 308)),
        ((720, 1280), (540, 960)),
        ((1, 9000), (1, 960)),
        ((240, 320), (240, 320)),
    ],
)
def test_sizes_for_the_page(shape: tuple[int, int], shown: tuple[int, int]) -> None:
    data = encode(np.full((*shape, 3), 128, np.uint8))
    assert data
    assert _decoded(data).shape[:2] == shown


def test_data_that_is_not_an_image_is_rejected() -> None:
    assert encode(np.zeros((0, 5, 3), np.uint8)) is None
    assert encode(np.zeros((4, 5, 7), np.uint8)) is None


@pytest.mark.slow
def test_readers_that_take_nothing_cost_nothing() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)
    results = [result(index) for index in range(20_000)]
    for index, each in enumerate(results):
        each.frame.image = noise if index % 2 else noise[::-1]
    with served() as web, _open(web, "/video"), _open(web, "/events"):
        web.add(results[0])
        time.sleep(0.3)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        slowest = 0.0
        busy = time.process_time()
        for index, each in enumerate(results):
            began = time.thread_time()
            web.add(each)
            slowest = max(slowest, time.thread_time() - began)
            if index % 100 == 0:
                time.sleep(0.01)
        assert time.process_time() - busy < 10
        assert slowest < 0.05  # CPU time, not waiting: nothing is encoded here
        grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        assert grown_kib < 32 << 10
        assert ask_json(web, "/state.json")["label"]["number"] == 20_001
        assert len(_jpegs(_open(web, "/video"), 1)) == 1


# Recordings


def test_a_recording_has_the_figures_of_its_interval() -> None:
    with served() as web:
        web.add(result(0))
        status, _, body = ask(web, "/recordings", "POST", POST)
        number = json.loads(body)["id"]
        assert status == 201
        assert ask(web, "/recordings", "POST", POST)[0] == 409
        assert [each["running"] for each in ask_json(web, "/recordings")] == [True]
        assert ask_json(web, f"/recordings/{number}.json")["figures"]["frames"]["in"] == 0
        for index in range(50):
            web.add(result(index))
        web.add(result(50, error="cut off"))
        web._monitor.tick()
        web._monitor.tick()
        stopped = ask_json(web, f"/recordings/{number}/stop", "POST")
        web.add(result(51))
        web._monitor.tick()
        assert ask(web, f"/recordings/{number}/stop", "POST", POST)[0] == 409
        assert (stopped["frames"], stopped["failed"], stopped["running"]) == (51, 1, False)
        assert stopped["watts"] == {"VCCINT": 3.2, "VCCAUX": 0.9}
        assert ask_json(web, "/recordings") == [stopped]
        _check_downloads(web, number)
        assert ask(web, "/recordings/2.json")[0] == 404


def _check_downloads(web: WebOutput, number: int) -> None:
    _, headers, body = ask(web, f"/recordings/{number}.json")
    assert re.fullmatch(
        r'attachment; filename="tutelage-\d{8}-\d{6}-1.json"', headers["content-disposition"]
    )
    document = json.loads(body)
    assert document["figures"]["frames"] == {"in": 51, "classified": 50, "failed": 1}
    assert set(document["figures"]["latency_ms"]["total"]) == {"p50", "p90", "p99", "mean", "max"}
    assert document["facts"] == FACTS and document["rows_left_out"] == 0
    rows = document["rows"]
    _, headers, body = ask(web, f"/recordings/{number}.csv")
    assert headers["content-type"].startswith("text/csv")
    table = list(csv.DictReader(io.StringIO(body.decode(), newline="")))
    assert len(table) == len(rows) >= 2
    assert [int(line["frames"]) for line in table] == [row["frames"] for row in rows]
    assert table[0]["watts_VCCINT"] == "3.2" and table[0]["queue_in_flight"] == "4"
    assert (table[0]["label"], table[0]["labelled"]) == ("Ankle boot", "0")
    assert table[-1]["p50_ms"] == ""


def test_an_empty_recording_is_a_whole_document() -> None:
    with served(gauges=dict) as web:
        ask_json(web, "/recordings", "POST")
        assert ask_json(web, "/recordings/1/stop", "POST")["p50_ms"] is None
        assert ask_json(web, "/recordings/1.json")["recording"]["watts"] is None
        assert len(ask(web, "/recordings/1.csv")[2].splitlines()) == 1


def test_old_recordings_make_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recordings_module, "MOST_ROWS", 20)
    monitor = Monitor(gauges, None)
    for _ in range(MOST_RECORDINGS + 3):
        monitor.stop_recording(monitor.start_recording())
    assert [each["id"] for each in monitor.recordings()] == [*range(4, MOST_RECORDINGS + 4)]
    last, kept = monitor.start_recording(), []
    for number in range(25):
        if number == 15:
            monitor.stop_recording(last)
            last = monitor.start_recording()
        monitor.tick()
        kept.append(len(monitor.recordings()))
    assert kept[14] == MOST_RECORDINGS and kept[-1] == 1  # more than 20 rows in all
    for _ in range(15):
        monitor.tick()
    assert (len(last.rows), last.rows_left_out) == (20, 5)


# The end


def test_closing_ends_every_stream_immediately() -> None:
    with served() as web:
        web.add(result(0))
        threads = threading.active_count()
        found: list[tuple[str, Any]] = []
        reader = threading.Thread(target=lambda: found.extend(_events(web, 100)))
        reader.start()
        video, idle = _open(web, "/video"), socket.create_connection(("127.0.0.1", _port(web)))
        _jpegs(video, 1)
        _close_in_time(web)
        reader.join(LONG)
        assert found[-1] == ("end", {"frames": 1, "failed": 0})
        video.settimeout(LONG)
        while video.recv(1 << 16):
            pass
        video.close()
        idle.close()
        with pytest.raises(urllib.error.URLError):
            urllib.request.urlopen(web.url, timeout=2)
        assert threading.active_count() < threads


def test_closing_does_not_wait_for_those_who_take_nothing() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (960, 960, 3), np.uint8)
    with served() as web:
        with _open(web, "/video"):
            for index in range(30):
                each = result(index)
                each.frame.image = noise[: 900 + index]
                web.add(each)
                time.sleep(0.05)
            _close_in_time(web)
        web.add(result(0))  # must be harmless
        with served(port=_port(web)):
            pass


def test_closing_ends_the_server_whatever_its_readers_do() -> None:
    """The thread ends too, although close waits for connections since Python 3.12."""
    noise = np.random.default_rng(0).integers(0, 256, (960, 960, 3), np.uint8)
    with served() as web:
        each = result(0)
        each.frame.image = noise
        web.add(each)
        readers = [_open(web, path) for path in ("/video", "/results", "/events", "/nothing")]
        readers += [socket.create_connection(("127.0.0.1", _port(web))) for _ in range(3)]
        for reader in readers[:4]:
            assert reader.recv(8) == b"HTTP/1.1"  # and nothing after it
        for _ in range(50):
            each = result(1)
            each.frame.image = noise = noise[::-1].copy()
            web.add(each)
            time.sleep(0.02)
        web.close()
        assert soon(lambda: not web._server._thread.is_alive())
        for reader in readers:
            reader.close()


def test_a_gauge_that_begins_to_hang_at_the_end_holds_nothing_up() -> None:
    ending, forever = threading.Event(), threading.Event()

    def hangs() -> dict[str, Any]:
        if ending.is_set():
            forever.wait(10 * LONG)
        return {}

    with served(gauges=hangs) as web:
        ending.set()
        ended = threading.Thread(target=web.end_run, daemon=True)
        ended.start()
        ended.join(LONG)
        assert not ended.is_alive()
        _close_in_time(web)
        forever.set()


def _close_in_time(web: WebOutput) -> None:
    """Close a server; fail if that waits for a client. (By itself it takes at most a second.)"""
    closing = threading.Thread(target=web.close, daemon=True)
    closing.start()
    closing.join(LONG)
    assert not closing.is_alive()


def test_a_gauge_that_hangs_holds_nothing_up() -> None:
    inside, forever = threading.Event(), threading.Event()

    def hangs() -> dict[str, Any]:
        inside.set()
        forever.wait(10 * LONG)
        return {}

    with served(gauges=hangs) as web:
        assert inside.wait(LONG)
        web.add(result(0))
        assert ask_json(web, "/state.json")["label"]["number"] == 1
        _close_in_time(web)
        forever.set()


# Paths out of the served folder

_OUT = ["..", "%2e%2e", "%252e%252e", "..%2f..", "..%5c..", "%c0%ae%c0%ae", "....//", "/etc", "%00"]


@pytest.mark.parametrize("step", _OUT)
@pytest.mark.parametrize("place", ["/static/", "/static/uplot/", "/recordings/", "/"])
def test_no_path_leads_out(output: WebOutput, place: str, step: str) -> None:
    for target in ("output.py", "classify.py", "etc/passwd"):
        for depth in (1, 3, 8):
            path = place + "/".join([step] * depth) + "/" + target
            status, headers, body = ask(output, path)
            assert status in (400, 404, 405), path
            assert b"import " not in body and b"root:" not in body
            assert headers["x-content-type-options"] == "nosniff"


def test_an_endless_number_is_not_a_recording(
    output: WebOutput, capfd: pytest.CaptureFixture[str]
) -> None:
    assert ask(output, f"/recordings/{'9' * 5000}.csv")[0] == 404
    assert capfd.readouterr() == ("", "")


def test_methods_that_nobody_asked_for(output: WebOutput) -> None:
    for method in ("PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "PROPFIND"):
        for path in ("/", "/recordings", "/static/page.js"):
            assert ask(output, path, method)[0] in (400, 403, 404, 405), (method, path)
            assert ask(output, path, method, POST)[0] in (400, 404, 405), (method, path)


def test_the_answer_does_not_name_the_server(output: WebOutput) -> None:
    _, headers, _ = ask(output, "/")
    assert "server" not in headers and "x-powered-by" not in headers
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert "unsafe" not in headers["content-security-policy"]
