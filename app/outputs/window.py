"""Output in a window."""

from __future__ import annotations

import os
from collections.abc import Callable

import cv2

from tutelage.app.outputs.annotation import annotate, readable_size
from tutelage.app.outputs.output import Output, OutputError
from tutelage.app.outputs.registry import OutputContext, register_output
from tutelage.app.pipeline.result import Result


@register_output(
    lambda uri: uri == "window", {"window": "a window, if there is a display"}, place=40
)
def open_window(_uri: str, context: OutputContext) -> Output:
    """Open a window.

    Raises
    ------
    OutputError
        There is no display, or OpenCV was built without windows.
    """
    return WindowOutput(context.stop)


class WindowOutput(Output):
    """A window with the newest frame; Q, Esc or closing it ends the run."""

    look_seconds = 0.03
    _TITLE = "classify"

    def __init__(self, stop: Callable[[], None]) -> None:
        if not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
            raise OutputError("window: no display; try --web and a browser")
        try:
            cv2.namedWindow(
                self._TITLE, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO | cv2.WINDOW_GUI_NORMAL
            )
        except cv2.error:
            raise OutputError(
                "window: this OpenCV was built without windows (opencv-python-headless); "
                "try --web and a browser, or: pip install opencv-python"
            ) from None
        self._stop = stop
        self._newest: Result | None = None
        self._shown = False

    def add(self, result: Result) -> None:
        if result.frame.image is not None:
            self._newest = result

    def look(self) -> None:
        newest, self._newest = self._newest, None
        if newest is not None and newest.frame.image is not None:
            picture = annotate(newest, *readable_size(newest.frame.image))
            cv2.imshow(self._TITLE, picture)
            if not self._shown:
                cv2.resizeWindow(self._TITLE, picture.shape[1], picture.shape[0])
                self._shown = True
        key = cv2.waitKey(1) & 0xFF
        closed = self._shown and cv2.getWindowProperty(self._TITLE, cv2.WND_PROP_VISIBLE) < 1
        if key in (ord("q"), 27) or closed:
            self._stop()

    def close(self) -> None:
        cv2.destroyAllWindows()
