"""The live page's server, over real HTTP."""

from __future__ import annotations

import csv
import io
import json
import re
import resource
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import cv2
import numpy as np
import pytest

pytest.importorskip("starlette", reason="the live page needs Starlette and uvicorn")
pytest.importorskip("uvicorn", reason="the live page needs Starlette and uvicorn")

from app.outputs import OutputError
from app.web import WebOutput, needs_token, parse_address
from app.web import recordings as recordings_module
from app.web.address import reachable_host
from app.web.monitor import Monitor
from app.web.recordings import MOST_RECORDINGS
from app.web.rows import read_gauges
from app.web.video import encode
from tests.app.web_results import FACTS, Feeder, ask, ask_json, gauges, image, result, served

POST = {"X-Tutelage": "1"}


@pytest.fixture(scope="module")
def output() -> Iterator[WebOutput]:
    """A server for the tests that leave it as it was."""
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
def test_wrong_addresses_are_told_in_one_line(text: str) -> None:
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
    with pytest.raises(OutputError, match=rf"^--web 127.0.0.1:{_port(output)}: Address .* in use$"):
        WebOutput("127.0.0.1", _port(output), None, FACTS, gauges, None)
    with pytest.raises(OutputError, match=r"^--web no.such.host.invalid:1: [^\n]*$"):
        WebOutput("no.such.host.invalid", 1, None, FACTS, gauges, None)


# Who may look


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
        assert {"HttpOnly", "SameSite=strict"} < set(headers["set-cookie"].split("; "))
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
    ]
    for headers in refused:
        assert ask(output, "/recordings", "POST", headers)[0] == 403
    assert ask_json(output, "/recordings") == []
    assert ask(output, "/recordings/9/stop", "POST", {**POST, "Origin": origin})[0] == 404
    assert ask(output, "/snapshot.jpg", headers={"Sec-Fetch-Site": "same-site"})[0] == 403


def test_every_answer_has_the_security_headers(output: WebOutput) -> None:
    for path in ("/", "/static/page.js", "/state.json", "/nothing", "/snapshot.jpg"):
        _, headers, _ = ask(output, path)
        assert headers["content-security-policy"].startswith("default-src 'self'; img-src")
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cache-control"] == ("no-cache" if "static" in path else "no-store")
    assert ask(output, "/static/../output.py")[0] == 404
    assert ask(output, "/static/%2e%2e/output.py")[0] == 404


# What is shown


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


def test_long_labels_and_facts_that_are_no_json() -> None:
    facts = {"scale": float("nan"), "made": time, "path": [1.5]}
    with served(facts=facts) as web:
        web.add(result(0, "x" * 5000))
        state = ask_json(web, "/state.json")
        assert state["facts"]["scale"] == "NaN" and state["facts"]["path"] == [1.5]
        assert len(state["label"]["top"][0][0]) == 300


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


def test_images_are_encoded_for_viewers_only_and_once() -> None:
    with served() as web:
        video = web._server._site.video
        with Feeder(web):
            time.sleep(0.3)
            assert video.encoded == 0
            with _open(web, "/video") as one, _open(web, "/video") as other:
                began = time.monotonic()
                _jpegs(one, 5)
                _jpegs(other, 5)
                assert video.encoded <= 15 * (time.monotonic() - began) + 2


def test_there_is_an_end_to_the_number_of_viewers() -> None:
    with served() as web, Feeder(web):
        viewers = [_open(web, "/video") for _ in range(8)]
        for viewer in viewers:
            _jpegs(viewer, 1)
        assert ask(web, "/video")[0] == 503
        viewers.pop().close()
        for _ in range(50):  # the server sees it when it sends next
            with _open(web, "/video") as again:
                if again.recv(12) == b"HTTP/1.1 200":
                    break
            time.sleep(0.05)
        else:
            pytest.fail("the place was not given back")
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


def test_what_is_no_image_is_no_jpeg() -> None:
    assert encode(np.zeros((0, 5, 3), np.uint8)) is None
    assert encode(np.zeros((4, 5, 7), np.uint8)) is None


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
        assert slowest < 0.05  # of CPU, not of waiting for it: no encoding happens here
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


def test_closing_ends_every_stream_at_once() -> None:
    with served() as web:
        web.add(result(0))
        threads = threading.active_count()
        found: list[tuple[str, Any]] = []
        reader = threading.Thread(target=lambda: found.extend(_events(web, 100)))
        reader.start()
        video, idle = _open(web, "/video"), socket.create_connection(("127.0.0.1", _port(web)))
        _jpegs(video, 1)
        began = time.monotonic()
        web.close()
        assert time.monotonic() - began < 1
        reader.join(5)
        assert found[-1] == ("end", {"frames": 1, "failed": 0})
        video.settimeout(2)
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
            began = time.monotonic()
            web.close()
            assert time.monotonic() - began < 1.2
        web.add(result(0))  # does no harm
        with served(port=_port(web)):
            pass


def test_a_gauge_that_hangs_holds_nothing_up() -> None:
    forever = threading.Event()

    def hangs() -> dict[str, Any]:
        forever.wait(20)
        return {}

    with served(gauges=hangs) as web:
        time.sleep(1.1)
        web.add(result(0))
        assert ask_json(web, "/state.json")["label"]["number"] == 1
        began = time.monotonic()
        web.close()
        assert time.monotonic() - began < 1
    forever.set()


# What leads out of the served folder

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


def test_methods_that_nobody_asked_for(output: WebOutput) -> None:
    for method in ("PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "PROPFIND"):
        for path in ("/", "/recordings", "/static/page.js"):
            assert ask(output, path, method)[0] in (400, 403, 404, 405), (method, path)
            assert ask(output, path, method, POST)[0] in (400, 404, 405), (method, path)


def test_the_answer_does_not_tell_what_serves_it(output: WebOutput) -> None:
    _, headers, _ = ask(output, "/")
    assert "server" not in headers and "x-powered-by" not in headers
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert "unsafe" not in headers["content-security-policy"]
