"""Record the live page on the demo's images, for the documentation.

    python -m tests.app.record_page

writes docs/images/live_page.png, the page after half a minute, and docs/images/live-page.webp, the
next seconds as a moving picture. Needs Chromium and Playwright.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
from playwright.sync_api import Page

from tests.browser import chromium

ROOT = Path(__file__).resolve().parents[2]
PICTURE, MOVING = ROOT / "docs/images/live_page.png", ROOT / "docs/images/live-page.webp"
SIZE = {"width": 1280, "height": 1000}
WIDTH = 960  # pixels of the moving picture
WARM_SECONDS = 30.0  # until the charts have something to show
FRAMES, FRAME_SECONDS = 24, 0.5
QUALITY = 60  # of 100
MOST_BYTES = 600_000


@contextmanager
def _run() -> Iterator[str]:
    """Run the application on the demo's images at 60 random arrivals per second; yield its URL."""
    script = [sys.executable, str(ROOT / "app/classify.py"), "--source", "app/demo/images"]
    pattern = ["--scenario", "server", "--qps", "60", "--duration", "300"]
    run = subprocess.Popen(
        [*script, *pattern, "--web", "127.0.0.1:0", "--quiet"],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert run.stderr is not None
    try:
        for line in run.stderr:
            if "live page" in line:
                yield line.split()[-1]
                break
    finally:
        run.terminate()
        run.wait()


def _frame(page: Page) -> np.ndarray:
    """Return the page's view: uint8, (height, `WIDTH`, 3), BGR."""
    shot = cv2.imdecode(np.frombuffer(page.screenshot(), np.uint8), cv2.IMREAD_COLOR)
    assert shot is not None
    height = round(shot.shape[0] * WIDTH / shot.shape[1])
    return cv2.resize(shot, (WIDTH, height), interpolation=cv2.INTER_AREA)


def _frames(page: Page) -> list[np.ndarray]:
    due, frames = time.monotonic(), []
    for _ in range(FRAMES):
        frames.append(_frame(page))
        due += FRAME_SECONDS
        page.wait_for_timeout(max(1.0, 1e3 * (due - time.monotonic())))
    return frames


def main() -> None:
    """Write both pictures."""
    with _run() as url, chromium() as browser:
        page = browser.new_page(viewport={"width": SIZE["width"], "height": SIZE["height"]})
        page.goto(url)
        page.wait_for_timeout(1e3 * WARM_SECONDS)
        page.screenshot(path=PICTURE)
        frames = _frames(page)
    animation = cv2.Animation()
    animation.frames = frames
    animation.durations = [int(1e3 * FRAME_SECONDS)] * len(frames)
    MOVING.parent.mkdir(exist_ok=True)
    cv2.imwriteanimation(str(MOVING), animation, [cv2.IMWRITE_WEBP_QUALITY, QUALITY])
    size = MOVING.stat().st_size
    print(f"{MOVING}: {size:,} bytes")
    if size > MOST_BYTES:
        sys.exit(f"{MOVING}: more than {MOST_BYTES:,} bytes")


if __name__ == "__main__":
    main()
