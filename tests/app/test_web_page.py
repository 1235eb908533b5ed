"""The live page in a real browser: Chromium, without a window."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

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
    sync_playwright,
)

from app.web import WebOutput
from tests.app.web_results import FACTS, Feeder, result, served

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
WAIT_MS = 10_000
SHOTS = os.environ.get("TUTELAGE_SHOTS")  # a directory to keep screenshots in
# What a page takes back the console says, too: not an error of the page's.
BROKEN_OFF = re.compile(r"ERR_(CONNECTION_REFUSED|INCOMPLETE_CHUNKED_ENCODING|CONNECTION_RESET)")

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium (apt install chromium)")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


class Watched:
    """A page, and what it did that it should not."""

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
        if message.type in ("error", "warning"):
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
        """No errors, no dialogs, and no request to anywhere but the server."""
        assert self.errors == [] and self.dialogs == []
        assert {urlsplit(each.url).netloc for each in self.requests} == {
            urlsplit(output.url).netloc
        }


def _points(page: Page, chart: str) -> int:
    """Count the coloured pixels of a chart: lines are, axes and grid are not."""
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
    """Wait until an expression is true. (Playwright's own way is eval, which the page forbids.)"""
    for _ in range(WAIT_MS // 50):
        if page.evaluate(expression):
            return
        page.wait_for_timeout(50)
    pytest.fail(f"never true: {expression}")


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
        expect(page.locator("#tiles")).to_contain_text(re.compile(r"Frames[\d,]+of 5,000"))
        expect(page.locator("#tiles")).to_contain_text("1 · 4 · 0")
        expect(page.locator("#tiles")).to_contain_text("62.0%")
        expect(page.locator("#facts")).to_contain_text("TUTELAGE_EMULATOR")
        expect(page.locator("#state")).to_contain_text("live")
        _wait(page, "document.getElementById('video').naturalWidth === 288")
        _wait(page, "document.querySelector('#power .key b').textContent === '3.20'")
        page.wait_for_timeout(2200)
        assert min(_points(page, chart) for chart in ("latency", "fps", "power")) > 5
        watched.shot("test-desktop")
        watched.assert_clean(web)


def test_a_page_that_is_opened_late_has_charts_at_once(browser: Browser) -> None:
    with served(gauges=dict) as web:
        for second in range(30):
            for index in range(20):
                web.add(result(20 * second + index))
            web._monitor.tick()
        with Watched(browser, scheme="dark") as watched:
            watched.page.goto(web.url)
            expect(watched.page.locator("#power")).to_contain_text("power: not measured")
            expect(watched.page.locator("#latency canvas")).to_be_visible()
            expect(watched.page.locator("#tiles .none")).to_have_count(6)
            watched.assert_clean(web)


def test_record_and_download(browser: Browser, tmp_path: Path) -> None:
    with served() as web, Feeder(web), Watched(browser) as watched:
        page = watched.page
        page.goto(web.url)
        page.get_by_role("button", name="Start recording").click()
        expect(page.locator("#running-time")).to_have_text("0:02")
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
        assert document["figures"]["frames"]["in"] > 50 and document["facts"] == FACTS
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
        left = page.locator(".card, #tiles").evaluate_all(
            "cards => new Set(cards.filter(c => !c.classList.contains('chart'))"
            ".map(c => Math.round(c.getBoundingClientRect().left))).size"
        )
        assert left == 1
        watched.shot(f"test-{width}")
        watched.assert_clean(web)


def test_names_of_strangers_are_text(browser: Browser) -> None:
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
            expect(page.locator("#facts")).to_contain_text(f"<script>{evil}</script>")
            expect(page.locator("#frame-name")).to_have_text(evil)
            expect(page.locator("img[src='x']")).to_have_count(0)
            page.wait_for_timeout(300)
            watched.assert_clean(web)


def test_a_failed_frame_is_told(browser: Browser) -> None:
    with served() as web, Watched(browser) as watched:
        web.add(result(0, error="image file is cut off"))
        watched.page.goto(web.url)
        expect(watched.page.locator("#label")).to_have_text("failed: image file is cut off")
        expect(watched.page.locator("#no-image")).to_be_visible()
        watched.assert_clean(web)


def test_the_page_finds_a_server_that_was_away(browser: Browser) -> None:
    with served() as web, Watched(browser) as watched:
        page, banner = watched.page, watched.page.locator("#banner")
        web.add(result(0))
        page.goto(web.url)
        _wait(page, "document.getElementById('video').naturalWidth > 0")
        # A server that dies says nothing: the connections break off.
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
            _wait(page, "document.getElementById('video').naturalWidth === 320")
        expect(banner).to_have_text("The run has ended after 1 frame.")
        expect(page.locator("#label")).to_have_text("Sneaker")
        assert [text for text in watched.errors if not BROKEN_OFF.search(text)] == []


def test_the_next_run_with_another_token_is_told(browser: Browser) -> None:
    with served(token="one") as web, Watched(browser) as watched:
        watched.page.goto(web.url)
        expect(watched.page.locator("#state")).to_contain_text("live")
        web.close()
        expect(watched.page.locator("#banner")).to_contain_text("The run has ended")
        with served(token="two", port=urlsplit(web.url).port):
            expect(watched.page.locator("#banner")).to_contain_text("asks for another token")


def test_a_hidden_page_takes_nothing(browser: Browser) -> None:
    with served() as web, Feeder(web), Watched(browser) as watched:
        page = watched.page
        page.goto(web.url)
        _wait(page, "document.getElementById('video').naturalWidth > 0")
        video = web._server._site.video
        assert video.viewers == 1
        _set_hidden(page, True)
        for _ in range(40):
            if video.viewers == 0:
                break
            page.wait_for_timeout(50)
        assert video.viewers == 0
        assert len(web._server._uvicorn.server_state.tasks) == 0  # the events, too
        _set_hidden(page, False)
        expect(page.locator("#video")).to_be_visible()
        assert video.viewers == 1
        watched.assert_clean(web)


def _set_hidden(page: Page, hidden: bool) -> None:
    """Headless pages are always visible: say otherwise."""
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
            page.wait_for_timeout(300)
        assert web.visited
        web.end_run()
        expect(page.locator("#banner")).to_contain_text("Recordings can be downloaded")
        expect(page.locator("#state")).to_contain_text("ended")
        with page.expect_download() as download:
            page.get_by_role("link", name="Download recording 1 as JSON").click()
        report = json.loads(download.value.path().read_text())
        assert report["figures"]["frames"]["in"] > 0
        assert watched.errors == []
