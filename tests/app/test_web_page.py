"""The live page in a real browser: Chromium, without a window."""

from __future__ import annotations

import csv
import json
import os
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import cv2
import numpy as np
import pytest

pytest.importorskip("starlette", reason="the live page needs Starlette and uvicorn")
pytest.importorskip("uvicorn", reason="the live page needs Starlette and uvicorn")
pytest.importorskip("playwright.sync_api", reason="needs Playwright")

from playwright.sync_api import (
    Browser,
    ConsoleMessage,
    Dialog,
    Page,
    Request,
    expect,
)

from tests.app.web_results import FACTS, LABELS, Feeder, labelled, result, served
from tests.browser import axe_faults, chromium
from tutelage.app.pipeline.result import Result
from tutelage.app.sources.frames import Frame
from tutelage.app.web import WebOutput

WAIT_MS = 60_000
SHOTS = os.environ.get("TUTELAGE_SHOTS")  # a directory to keep screenshots in
# The console also reports requests that the page cancels, which are not errors.
READBACK = re.compile("readback operations")  # from these tests' own checks of the charts
BROKEN_OFF = re.compile(r"ERR_(CONNECTION_REFUSED|INCOMPLETE_CHUNKED_ENCODING|CONNECTION_RESET)")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        expect.set_options(timeout=WAIT_MS)
        yield browser


class Watched:
    """A page, with the errors, dialogs and requests to other servers that it causes."""

    def __init__(
        self, browser: Browser, width: int = 1280, height: int = 800, scheme: str = "light"
    ):
        self.context = browser.new_context(
            viewport={"width": width, "height": height},
            color_scheme="dark" if scheme == "dark" else "light",
        )
        self.context.set_default_timeout(WAIT_MS)
        self.page: Page = self.context.new_page()
        self.errors: list[str] = []
        self.dialogs: list[str] = []
        self.requests: list[Request] = []
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", self._note_message)
        self.page.on("dialog", self._note_dialog)
        self.page.on("request", lambda request: self.requests.append(request))

    def _note_message(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning") and not READBACK.search(message.text):
            self.errors.append(message.text)

    def _note_dialog(self, dialog: Dialog) -> None:
        self.dialogs.append(dialog.message)
        dialog.dismiss()

    def __enter__(self) -> Watched:
        return self

    def __exit__(self, *_: object) -> None:
        self.context.close()

    def shot(self, name: str) -> None:
        if SHOTS:
            self.page.screenshot(path=Path(SHOTS) / f"{name}.png", full_page=True)

    def assert_clean(self, output: WebOutput) -> None:
        """Verify that there were no errors, no dialogs, and no requests to other servers."""
        assert self.errors == [] and self.dialogs == []
        assert {urlsplit(each.url).netloc for each in self.requests} == {
            urlsplit(output.url).netloc
        }


def _points(page: Page, chart: str) -> int:
    """Count the coloured pixels of a chart: lines are coloured, axes and grid are grey."""
    count: int = page.evaluate(
        """id => {
          const canvas = document.querySelector(`#${id} canvas`);
          if (!canvas) return 0;
          const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
          let coloured = 0;
          for (let i = 0; i < data.length; i += 4) {
            const most = Math.max(data[i], data[i + 1], data[i + 2]);
            const least = Math.min(data[i], data[i + 1], data[i + 2]);
            coloured += data[i + 3] > 200 && most - least > 80;
          }
          return coloured;
        }""",
        chart,
    )
    return count


def _wait(page: Page, expression: str) -> None:
    """Wait until an expression is true. (Playwright would use eval, which the page forbids.)"""
    for _ in range(WAIT_MS // 50):
        if page.evaluate(expression):
            return
        page.wait_for_timeout(50)
    pytest.fail(f"never true: {expression}")


def _wait_until(page: Page, done: Callable[[], bool]) -> None:
    for _ in range(WAIT_MS // 50):
        if done():
            return
        page.wait_for_timeout(50)
    pytest.fail("never so")


def _overflow(page: Page) -> int:
    wide: int = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
    return wide


def test_the_page_shows_the_run(browser: Browser) -> None:
    with served(length=5000, token="key") as web, Feeder(web, size=96), Watched(browser) as watched:
        page = watched.page
        page.goto(web.url)
        assert "key" not in page.url
        expect(page.locator("#label")).to_have_text("Ankle boot")
        expect(page.locator("#confidence")).to_have_text(re.compile(r"^\d\d\.\d%$"))
        expect(page.locator("#classes li")).to_have_count(5)
        widths = page.locator("#classes .bar").evaluate_all("bars => bars.map(b => b.style.width)")
        assert sorted(widths, key=lambda width: -float(width[:-1])) == widths
        expect(page.locator("#tiles")).to_contain_text(re.compile(r"Frames[\d,]+3 dropped"))
        expect(page.locator("#tiles")).to_contain_text("62.0%")
        expect(page.locator("#tiles")).to_contain_text("Power11.5W")
        expect(page.locator("#tiles > div")).to_have_count(6)
        expect(page.locator("#more-tiles")).to_be_hidden()
        page.get_by_text("Queues, losses and the machine").click()
        expect(page.locator("#more-tiles")).to_contain_text("1 · 4 · 0")
        expect(page.locator("#state")).to_contain_text("live")
        _wait(page, "document.getElementById('video').width === 288")
        _wait(page, "document.querySelector('#power .key b').textContent === '3.20'")
        charts = ("latency", "fps", "load", "memory", "temperature", "power")
        _wait_until(page, lambda: min(_points(page, chart) for chart in charts) > 5)
        watched.shot("test-desktop")
        watched.assert_clean(web)


def test_a_page_opened_late_has_charts_immediately(browser: Browser) -> None:
    with served(gauges=dict) as web:
        for second in range(30):
            for index in range(20):
                web.add(result(20 * second + index))
            web._monitor.tick()
        with Watched(browser, scheme="dark") as watched:
            watched.page.goto(web.url)
            expect(watched.page.locator("#unmeasured")).to_have_text(
                "Not measured: load, memory, temperature, power."
            )
            expect(watched.page.locator("#latency canvas")).to_be_visible()
            expect(watched.page.locator("#power")).to_be_hidden()
            expect(watched.page.locator("#accuracy")).to_be_hidden()
            expect(watched.page.locator(".confusion")).to_be_hidden()
            for text in ("Accuracynot knownno true labels", "DPUnot measured", "Powernot measured"):
                expect(watched.page.locator("#tiles")).to_contain_text(text)
            watched.assert_clean(web)


@pytest.mark.slow
def test_record_and_download(browser: Browser, tmp_path: Path) -> None:
    with served() as web, Feeder(web), Watched(browser) as watched:
        page = watched.page
        page.goto(web.url)
        page.get_by_role("button", name="Start recording").click()
        expect(page.locator("#running-time")).to_have_text(re.compile("0:0[2-9]"))
        page.keyboard.press("Enter")  # the button still has the focus
        expect(page.get_by_role("button", name="Start recording")).to_be_enabled()
        expect(page.locator("#running-time")).to_be_empty()
        row = page.locator("#recordings tbody tr")
        expect(row).to_have_count(1)
        expect(row).to_contain_text("VCCINT 3.20 W")
        for kind in ("json", "csv"):
            with page.expect_download() as download:
                page.get_by_role("link", name=f"Download recording 1 as {kind.upper()}").click()
            download.value.save_as(tmp_path / f"recording.{kind}")
        document = json.loads((tmp_path / "recording.json").read_text())
        assert document["figures"]["frames"]["in"] > 0 and document["facts"] == FACTS
        with (tmp_path / "recording.csv").open(newline="") as table:
            assert len(list(csv.DictReader(table))) == len(document["rows"]) >= 1
        watched.assert_clean(web)


def test_a_recording_started_elsewhere_is_seen(browser: Browser) -> None:
    with served() as web, Watched(browser) as watched:
        watched.page.goto(web.url)
        expect(watched.page.get_by_role("button", name="Start recording")).to_be_enabled()
        web._monitor.start_recording()
        expect(watched.page.get_by_role("button", name="Stop recording")).to_be_enabled()
        watched.assert_clean(web)


@pytest.mark.parametrize("width", [360, 390, 800])
def test_narrow_screens_have_one_column_and_no_sideways_scroll(
    browser: Browser, width: int
) -> None:
    name = "a_label_without_any_space_in_it_" * 4
    with served(facts={**FACTS, name: name}) as web, Watched(browser, width, 844) as watched:
        web._monitor.stop_recording(web._monitor.start_recording())
        web._monitor.start_recording()
        web.add(result(1, name))
        web._monitor.tick()
        page = watched.page
        page.goto(web.url)
        expect(page.locator("#label")).to_have_text(name)
        expect(page.locator("#recordings tbody tr")).to_have_count(2)
        expect(page.locator("#latency canvas")).to_be_visible()
        assert _overflow(page) <= 0
        left = page.locator("main .card:not(.chart)").evaluate_all(
            "cards => new Set(cards.filter(c => c.getClientRects().length)"
            ".map(c => Math.round(c.getBoundingClientRect().left))).size"
        )
        assert left == 1
        watched.shot(f"test-{width}")
        watched.assert_clean(web)


def test_a_phone_shows_the_run_first_and_no_list_of_facts(browser: Browser) -> None:
    many = {**FACTS, "provenance": {f"fact {number}": number for number in range(100)}}
    with served(facts=many) as web, Watched(browser, 390, 844) as watched:
        page = watched.page
        for index, label in enumerate(LABELS):
            web.add(labelled(label, label, index))
        web._monitor.tick()
        page.goto(web.url)
        expect(page.locator("#facts dt")).to_have_count(6)
        expect(page.locator("#temperature canvas")).to_be_visible()
        tops = page.locator(".now, .figures, .timeline, #latency, .confusion, .recordings, .facts")
        order = tops.evaluate_all(
            "all => all.sort((a, b) => a.getBoundingClientRect().top - "
            "b.getBoundingClientRect().top).map(each => each.id || each.classList[1])"
        )
        assert order == [
            *("now", "figures", "timeline", "latency", "confusion", "recordings", "facts"),
        ]
        assert page.evaluate("document.documentElement.scrollHeight") < 3600
        widths = page.locator("main .card").evaluate_all(
            "all => [...new Set(all.map(each => Math.round(each.getBoundingClientRect().width)))]"
        )
        assert len(widths) == 1 and widths[0] < 390
        watched.assert_clean(web)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_axe_finds_no_fault(browser: Browser, width: int, scheme: str) -> None:
    with served() as web, Watched(browser, width, 844, scheme) as watched:
        page = watched.page
        web._monitor.stop_recording(web._monitor.start_recording())
        for true, found in [("Bag", "Bag"), ("Coat", "Bag"), ("Coat", "Coat"), ("Bag", "Sandal")]:
            web.add(labelled(true, found))
            web._monitor.tick()
        page.goto(web.url)
        expect(page.locator("#matrix tbody tr")).to_have_count(3)
        expect(page.locator("#latency canvas")).to_be_visible()
        page.get_by_label("Uncertain below").fill("95")
        expect(page.locator("#uncertain")).to_be_visible()
        for summary in page.locator("summary").all():
            summary.click()
        web.end_run("the camera is gone")
        expect(page.locator("#banner")).to_be_visible()
        assert axe_faults(page) == []


def test_untrusted_names_are_text(browser: Browser) -> None:
    evil = "<img src=x onerror=alert(1)>"
    facts = {"model": {"name": evil, evil: f"<script>{evil}</script>"}, "provider": evil}
    with served(facts=facts, gauges=lambda: {"watts": {evil: 1.0}}) as web:
        given = result(0, evil)
        given.frame.name = given.true_label = evil
        web.add(given)
        web._monitor.tick()
        with Watched(browser) as watched:
            page = watched.page
            page.goto(web.url)
            expect(page.locator("#label")).to_have_text(evil)
            expect(page.locator("#classes li").first).to_contain_text(evil)
            expect(page.locator("#power .key")).to_contain_text(evil)
            expect(page.locator("#timeline")).to_contain_text(evil)
            expect(page.locator("#matrix tbody")).to_contain_text(evil)
            expect(page.locator("#all-facts")).to_contain_text(f"<script>{evil}</script>")
            expect(page.locator("#frame-name")).to_have_text(evil)
            expect(page.locator("img[src='x']")).to_have_count(0)
            page.wait_for_timeout(300)
            watched.assert_clean(web)


def test_six_facts_are_shown_and_all_of_them_folded(browser: Browser) -> None:
    many = {**FACTS, "provenance": {f"fact {number}": number for number in range(40)}}
    with served(facts=many) as web, Watched(browser) as watched:
        page = watched.page
        page.goto(web.url)
        expect(page.locator("#facts dt")).to_have_count(6)
        shown = page.locator("#facts dt, #facts dd").all_inner_texts()
        assert dict(zip(shown[::2], shown[1::2], strict=True)) == {
            "Model": "fashion-densenet",
            "Input": "28 × 28 grey, 10 classes",
            "Compiled for": "TUTELAGE_EMULATOR",
            "Runs on": "emulation (no vart/xir on this machine)",
            "Source": "/dev/video0",
            "Machine": "ZynqMP ZCU104 RevC, PynqLinux",
        }
        folded = page.locator("#all-facts dl")
        expect(folded.first).to_be_hidden()
        page.get_by_text("All 52 facts").click()
        expect(folded.first).to_be_visible()
        tables = page.locator("#all-facts h3")
        assert tables.all_inner_texts() == ["run", "model", "board", "provenance"]
        expect(folded.nth(0).locator("dt")).to_have_text(["provider", "source", "threads"])
        expect(folded.nth(3)).to_contain_text("fact 39")
        watched.assert_clean(web)


def test_accuracy_and_confusion_where_the_truth_is_known(browser: Browser) -> None:
    with served(gauges=dict) as web, Watched(browser) as watched:
        page = watched.page
        for true, found in [("Bag", "Bag"), ("Bag", "Bag"), ("Coat", "Coat"), ("Coat", "Bag")]:
            web.add(labelled(true, found))
        web._monitor.tick()
        web._monitor.tick()
        page.goto(web.url)
        expect(page.locator("#tiles")).to_contain_text("Accuracy75.0%3 of 4 correct")
        expect(page.locator("#accuracy .key b")).to_have_text("75.0")
        rows = page.locator("#matrix tbody tr")
        expect(rows).to_have_text(["Bag2", "Coat11"])
        assert page.locator("#matrix td[data-level]").evaluate_all(
            "cells => cells.map(cell => cell.className + cell.dataset.level)"
        ) == ["right5", "wrong0", "wrong3", "right3"]
        expect(page.locator("#matrix thead th")).to_have_text(["Bag", "Coat"])
        expect(page.locator("#confused")).to_have_text("Most often: Coat found as Bag (1).")
        web.add(labelled("Sandal", "Sandal"))
        web._monitor.tick()
        expect(rows).to_have_text(["Bag2", "Coat11", "Sandal1"])
        expect(page.locator("#tiles")).to_contain_text("Accuracy80.0%4 of 5 correct")
        watched.assert_clean(web)


def test_the_timeline_has_a_lane_per_label(browser: Browser) -> None:
    labels = [*LABELS, *(f"class {number}" for number in range(8, 12))]
    with served(gauges=dict) as web:
        for second, label in enumerate([*labels, "Bag", "Bag", "Sneaker"]):
            web.add(labelled(label, label, second))
            web._monitor.tick()
        with Watched(browser) as watched:
            page = watched.page
            page.goto(web.url)
            lanes = page.locator("#timeline li")
            expect(lanes).to_have_count(8)
            texts = lanes.all_inner_texts()
            found = {text.split("\n")[0]: text.split("\n")[-1] for text in texts}
            assert found["Bag"] == "3 s" and found["Sneaker"] == "2 s"
            assert list(found)[-1] == "2 others" and found["2 others"] == "2 s"
            bag = page.locator("#timeline path").nth(2 * list(found).index("Bag"))
            assert (bag.get_attribute("d") or "").count("M") == 3
            watched.assert_clean(web)


def _move_threshold(page: Page, percent: int) -> None:
    page.get_by_label("Uncertain below").fill(str(percent))


def test_below_the_threshold_a_label_is_uncertain(browser: Browser) -> None:
    with served(gauges=dict) as web, Watched(browser) as watched:
        page, mark = watched.page, watched.page.locator("#uncertain")
        web.add(labelled("Bag", "Bag"))  # 90 %
        web._monitor.tick()
        page.goto(web.url)
        faint = page.locator("#timeline .faint")
        expect(page.locator("#label")).to_have_text("Bag")
        expect(mark).to_be_hidden()
        expect(page.locator("#threshold-value")).to_have_text("off")
        _move_threshold(page, 91)
        expect(mark).to_be_visible()
        expect(page.locator("#threshold-value")).to_have_text("91%")
        expect(faint).to_have_attribute("d", re.compile("^M"))
        _move_threshold(page, 90)
        expect(mark).to_be_hidden()
        expect(faint).to_have_attribute("d", "")
        _move_threshold(page, 100)
        web.add(Result(Frame(1, "scores", None), [("Coat", 7.5)]))  # not a probability
        expect(page.locator("#label")).to_have_text("Coat")
        expect(mark).to_be_hidden()
        watched.assert_clean(web)


def test_a_paused_page_stays_as_it_is_while_the_run_goes_on(browser: Browser) -> None:
    with served() as web, Watched(browser) as watched:
        page, video = watched.page, web._server._page.video
        web.add(_plain(0, "red"))
        web._monitor.tick()
        page.goto(web.url)
        expect(page.locator("#frame-name")).to_have_text("red-0")
        expect(page.locator("#tiles")).to_contain_text("Frames1")
        page.get_by_role("button", name="Pause").click()
        expect(page.locator("#state")).to_have_text("paused")
        _wait_until(page, lambda: video.viewers == 0)
        web.add(_plain(1, "blue"))
        web._monitor.tick()
        web._monitor.start_recording()  # recordings are shown even so
        expect(page.get_by_role("button", name="Stop recording")).to_be_enabled()
        expect(page.locator("#frame-name")).to_have_text("red-0")
        expect(page.locator("#tiles")).to_contain_text("Frames1")
        expect(page.locator("#state")).to_have_text("paused")
        page.get_by_role("button", name="Resume").click()
        expect(page.locator("#frame-name")).to_have_text("blue-1")
        expect(page.locator("#tiles")).to_contain_text("Frames2")
        expect(page.locator("#state")).to_contain_text("live")
        watched.assert_clean(web)


def test_a_snapshot_has_the_picture_and_its_label(browser: Browser, tmp_path: Path) -> None:
    with served() as web, Watched(browser) as watched:
        page = watched.page
        page.goto(web.url)
        expect(page.get_by_role("button", name="Snapshot")).to_be_disabled()
        shot = _plain(0, "red")
        shot.frame.name = "../<holiday>/red 0.png"
        web.add(shot)
        with page.expect_download() as download:
            page.get_by_role("button", name="Snapshot").click()
        name = download.value.suggested_filename
        assert re.fullmatch(r"tutelage-\d{8}-\d{6}-red-holiday-red-0-png\.png", name)
        download.value.save_as(tmp_path / "shot.png")
        saved = cv2.imread(str(tmp_path / "shot.png"))
        assert saved is not None
        height, width = saved.shape[:2]
        picture, caption = saved[: height - 64].astype(int), saved[height - 64 :]
        assert width >= 480 and picture.shape[0] == width * 60 // 80
        assert (picture[..., 2] - picture[..., 0] > 150).all()
        assert 200 < (caption.min(axis=2) > 200).sum() < caption.shape[0] * width // 4  # the words
        watched.assert_clean(web)


def test_the_picture_fills_the_screen_with_its_label(browser: Browser) -> None:
    with served() as web, Watched(browser) as watched:
        page = watched.page
        web.add(_plain(0, "red"))
        page.goto(web.url)
        expect(page.locator("#label")).to_have_text("red")
        page.get_by_role("button", name="Full screen").click()
        _wait(page, "document.fullscreenElement?.id === 'stage'")
        box = page.locator("#video").bounding_box()
        assert box and box["width"] == page.evaluate("window.innerWidth") and box["height"] > 600
        expect(page.locator("#label")).to_be_in_viewport()
        page.evaluate("document.exitFullscreen().then(() => 1)")
        _wait(page, "document.fullscreenElement === null")
        watched.assert_clean(web)


def test_a_failed_frame_is_reported(browser: Browser) -> None:
    with served() as web, Watched(browser) as watched:
        web.add(result(0, error="image file is cut off"))
        watched.page.goto(web.url)
        expect(watched.page.locator("#label")).to_have_text("failed: image file is cut off")
        expect(watched.page.locator("#no-image")).to_be_visible()
        watched.assert_clean(web)


def _plain(index: int, colour: str, shape: tuple[int, int] = (60, 80)) -> Result:
    """A result whose frame has one colour, with its name and class."""
    image = np.zeros((*shape, 3), np.uint8)
    image[...] = {"red": (0, 0, 220), "blue": (220, 0, 0)}[colour]
    return Result(Frame(index, f"{colour}-{index}", image), [(colour, 0.9)])


# Sample the page for some time: count samples whose colour and name differ, collect the names.
SAMPLES = """
async () => {
  const video = document.getElementById("video"), canvas = document.createElement("canvas");
  canvas.width = canvas.height = 4;
  const context = canvas.getContext("2d", { willReadFrequently: true });
  const seen = new Set();
  let wrong = 0;
  for (let taken = 0; taken < 400 && (taken < 60 || seen.size < 12); taken++) {
    await new Promise((done) => setTimeout(done, 23));
    context.drawImage(video, 0, 0, 4, 4);
    const [red, , blue] = context.getImageData(1, 1, 1, 1).data;
    const name = document.getElementById("frame-name").textContent;
    const label = document.getElementById("label").textContent;
    seen.add(name);
    if (name.includes("red") !== red > blue || !name.startsWith(label)) wrong += 1;
  }
  return [wrong, seen.size];
}
"""


def test_label_and_picture_are_of_the_same_frame(browser: Browser) -> None:
    with served() as web, Watched(browser) as watched:
        stopped = threading.Event()

        def feed() -> None:
            index = 0
            while not stopped.wait(0.03):
                web.add(_plain(index, "red" if index % 2 else "blue"))
                index += 1

        feeder = threading.Thread(target=feed)
        feeder.start()
        try:
            watched.page.goto(web.url)
            expect(watched.page.locator("#video")).to_be_visible()
            wrong, seen = watched.page.evaluate(SAMPLES)
        finally:
            stopped.set()
            feeder.join()
        assert (wrong, seen >= 12) == (0, True)
        watched.assert_clean(web)


# Return the share of the first class's bar at the moment when its confidence is shown.
BAR = """
async (shown) => {
  const [, track, value] = document.querySelector("#classes li").children;
  while (value.textContent !== shown) await new Promise(requestAnimationFrame);
  return track.firstChild.getBoundingClientRect().width / track.getBoundingClientRect().width;
}
"""


def test_a_bar_is_as_long_as_the_confidence_beside_it(browser: Browser) -> None:
    with served() as web, Watched(browser) as watched:
        web.add(Result(Frame(0, "a"), [("a", 0.1)]))
        watched.page.goto(web.url)
        expect(watched.page.locator("#classes .value")).to_have_text("10.0%")
        next_result = threading.Timer(0.5, web.add, [Result(Frame(1, "b"), [("b", 0.9)])])
        next_result.start()
        assert watched.page.evaluate(BAR, "90.0%") == pytest.approx(0.9, abs=0.02)
        watched.assert_clean(web)


def test_ten_classes_fit_on_a_phone(browser: Browser) -> None:
    names = [*LABELS, "Pullover", "T-shirt", "Dress", "Coat", "Shirt"]
    with served() as web, Watched(browser, 390, 844) as watched:
        for name in names:
            for _ in range(100):
                web.add(labelled(name, name))
        web._monitor.tick()
        watched.page.goto(web.url)
        expect(watched.page.locator("#matrix tbody tr")).to_have_count(10)
        scroll = watched.page.locator(".confusion .scroll")
        assert scroll.evaluate("each => each.scrollWidth - each.clientWidth") == 0
        watched.assert_clean(web)


def test_nothing_of_an_earlier_picture_is_left(browser: Browser) -> None:
    with served() as web, Watched(browser) as watched:
        page = watched.page
        web.add(_plain(0, "red", (90, 320)))
        page.goto(web.url)
        expect(page.locator("#frame-name")).to_have_text("red-0")
        web._monitor.tick()
        page.wait_for_timeout(300)
        web.add(_plain(1, "blue", (320, 90)))
        expect(page.locator("#frame-name")).to_have_text("blue-1")
        shot = cv2.imdecode(np.frombuffer(page.locator(".screen").screenshot(), np.uint8), 1)
        assert shot is not None
        blue, _, red = (shot[..., channel].astype(int) for channel in range(3))
        assert (blue - red > 100).sum() > 1000
        assert not (red - blue > 60).any()
        web.add(result(2, error="image file is cut off"))
        expect(page.locator("#label")).to_have_text("failed: image file is cut off")
        expect(page.locator("#no-image")).to_have_text("this frame has no picture")
        expect(page.locator("#video")).to_be_hidden()
        watched.assert_clean(web)


def test_a_viewer_too_many_sees_the_labels(browser: Browser) -> None:
    with served() as web, Watched(browser) as watched:
        web._server._page.video.viewers = 8
        web.add(_plain(0, "red"))
        watched.page.goto(web.url)
        expect(watched.page.locator("#no-image")).to_contain_text("8 viewers are watching already")
        expect(watched.page.locator("#label")).to_have_text("red")
        web.add(_plain(1, "blue"))
        expect(watched.page.locator("#label")).to_have_text("blue")


@contextmanager
def _elsewhere(page: str) -> Iterator[str]:
    """Serve a page on localhost, which is a different site from 127.0.0.1; yield its URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(page.encode())

        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"http://localhost:{server.server_port}/"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_link_on_another_page_opens_this_one(browser: Browser) -> None:
    with served(token="key of a service") as web, Watched(browser) as watched:
        web.add(result(0))
        links = f'<a id="new" href="{web.url}">new</a> <a id="old" href="{web.address}">old</a>'
        with _elsewhere(links) as other:
            for link in ("#new", "#old"):  # the second one uses the cookie of the first
                watched.page.goto(other)
                watched.page.click(link)
                expect(watched.page.locator("#label")).to_have_text("Ankle boot")
                assert watched.page.url == web.address
        assert [cookie["sameSite"] for cookie in watched.context.cookies()] == ["Lax"]


def test_another_page_can_do_nothing_here(browser: Browser) -> None:
    """The browser has the cookie from an earlier visit."""
    with served(token="key of a service") as web, Watched(browser) as watched:
        page = watched.page
        web.add(result(0))
        page.goto(web.url)
        expect(page.locator("#label")).to_have_text("Ankle boot")
        attack = f"""
        <iframe src="{web.address}"></iframe><img src="{web.address}snapshot.jpg">
        <form method="post" action="{web.address}recordings"><button>send</button></form>
        <script>
          window.sent = Promise.allSettled([
            fetch("{web.address}recordings", {{ method: "POST", mode: "no-cors",
              credentials: "include" }}),
            fetch("{web.address}recordings", {{ method: "POST", credentials: "include",
              headers: {{ "X-Tutelage": "1" }} }}),
          ]);
        </script>"""
        statuses: dict[str, int] = {}
        page.on("response", lambda answer: statuses.update({answer.url: answer.status}))
        with _elsewhere(attack) as other:
            page.goto(other)
            page.evaluate("window.sent.then(() => 1)")
            _wait_until(page, lambda: web.address in statuses)  # the frame
            assert page.evaluate("document.images[0].naturalWidth") == 0
            page.click("button")
            _wait_until(page, lambda: page.url == web.address + "recordings")
        ours = {url: status for url, status in statuses.items() if url.startswith(web.address)}
        assert ours and all(status in (401, 403) for status in ours.values()), ours
        assert web._monitor.recordings() == []


def test_an_error_that_ends_the_run_is_shown(browser: Browser) -> None:
    with served() as web, Watched(browser) as watched:
        web.add(result(0))
        watched.page.goto(web.url)
        expect(watched.page.locator("#state")).to_contain_text("live")
        web.end_run("/dev/video0 gives no more images after 1; it is gone")
        web.close()
        expect(watched.page.locator("#banner")).to_have_text(
            "The run has ended after 1 frame, with an error: "
            "/dev/video0 gives no more images after 1; it is gone"
        )


def test_the_page_finds_a_server_that_was_away(browser: Browser) -> None:
    with served() as web, Watched(browser) as watched:
        page, banner = watched.page, watched.page.locator("#banner")
        web.add(result(0))
        page.goto(web.url)
        _wait(page, "!document.getElementById('video').hidden")
        # A server that dies sends nothing: the connections are reset.
        web._server._uvicorn.force_exit = web._server._uvicorn.should_exit = True
        expect(banner).to_have_text("Connection lost. Trying again …")
        expect(page.get_by_role("button", name="Start recording")).to_be_disabled()
        expect(page.locator("#label")).to_have_text("Ankle boot")
        watched.shot("test-lost")
        web.close()
        with served(port=urlsplit(web.url).port) as again:
            again.add(result(0, "Sneaker", size=40))
            expect(page.locator("#label")).to_have_text("Sneaker")
            expect(banner).to_be_hidden()
            _wait(page, "document.getElementById('video').width === 320")
        expect(banner).to_have_text("The run has ended after 1 frame.")
        expect(page.locator("#label")).to_have_text("Sneaker")
        assert [text for text in watched.errors if not BROKEN_OFF.search(text)] == []


def test_the_page_reports_a_next_run_with_another_token(browser: Browser) -> None:
    with served(token="one") as web, Watched(browser) as watched:
        watched.page.goto(web.url)
        expect(watched.page.locator("#state")).to_contain_text("live")
        web.close()
        expect(watched.page.locator("#banner")).to_contain_text("The run has ended")
        with served(token="two", port=urlsplit(web.url).port):
            expect(watched.page.locator("#banner")).to_contain_text("needs another token")


def test_a_hidden_page_takes_nothing(browser: Browser) -> None:
    with served() as web, Feeder(web), Watched(browser) as watched:
        page = watched.page
        page.goto(web.url)
        _wait(page, "!document.getElementById('video').hidden")
        video = web._server._page.video
        assert video.viewers == 1
        _set_hidden(page, True)
        tasks = web._server._uvicorn.server_state.tasks  # of the events too
        _wait_until(page, lambda: video.viewers == 0 and not tasks)
        _set_hidden(page, False)
        expect(page.locator("#video")).to_be_visible()
        _wait_until(page, lambda: video.viewers == 1)
        watched.assert_clean(web)


def _set_hidden(page: Page, hidden: bool) -> None:
    """Report the page as hidden, since headless pages are always visible."""
    page.evaluate(
        """hidden => {
          Object.defineProperty(document, "hidden", { configurable: true, get: () => hidden });
          document.dispatchEvent(new Event("visibilitychange"));
        }""",
        hidden,
    )


def test_the_page_stays_after_the_last_result_for_its_recordings(browser: Browser) -> None:
    with served() as web, Watched(browser) as watched:
        page = watched.page
        assert not web.visited
        with Feeder(web):
            page.goto(web.url)
            page.get_by_role("button", name="Start recording").click()
            expect(page.get_by_role("button", name="Stop recording")).to_be_visible()
            _wait_until(page, lambda: web._monitor.recordings()[0]["frames"] > 0)
        assert web.visited
        web.end_run()
        expect(page.locator("#banner")).to_contain_text("Recordings can be downloaded")
        expect(page.locator("#state")).to_contain_text("ended")
        with page.expect_download() as download:
            page.get_by_role("link", name="Download recording 1 as JSON").click()
        report = json.loads(download.value.path().read_text())
        assert report["figures"]["frames"]["in"] > 0
        assert watched.errors == []
