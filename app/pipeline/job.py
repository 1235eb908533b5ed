"""A frame on its way through the pipeline."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from tutelage.app.pipeline.pixel_budget import NoRoom
from tutelage.app.sources.frames import Frame, FrameSource
from tutelage.core.errors import first_line


class FrameJob:
    """A frame on its way.

    Attributes
    ----------
    frame : the frame
    ticket : 0, 1, 2, ... in the order in which results are given out
    began : monotonic time (s) from which its latency counts
    read : when it had been read
    pixels : of an image that the reader gave it; 0 where one is decoded later or is shared
    attempts : how many runners have failed on it
    milliseconds : per stage, as far as it has come
    """

    __slots__ = (
        "attempts", "began", "frame", "milliseconds", "pixels", "read", "submitted", "ticket"
    )  # fmt: skip

    def __init__(self, frame: Frame, began: float, read: float, pixels: int = 0) -> None:
        self.frame = frame
        self.began = began
        self.read = read
        self.pixels = pixels
        self.ticket = -1
        self.attempts = 0
        self.submitted = 0.0
        self.milliseconds: dict[str, float] = {}


def jobs_of(
    source: FrameSource, limit: int | None, has_room: Callable[[], bool] | None
) -> Iterator[FrameJob]:
    """Yield a source's frames as jobs.

    Parameters
    ----------
    limit : yield no more than this
    has_room : called before each frame; waits for room, and ends the reading by False. None where
        there always is
    """
    frames, count = iter(source), 0
    shared = source.shares_images or source.at_hand
    while (limit is None or count < limit) and (has_room is None or has_room()):
        began = time.monotonic()
        frame = next(frames, None)
        if frame is None:
            return
        read = time.monotonic()
        image = None if shared else frame.image
        pixels = 0 if image is None else image.shape[0] * image.shape[1]
        job = FrameJob(frame, frame.due or (read if source.live else began), read, pixels)
        if frame.due is None:  # else it was issued at its time, and read long before
            job.milliseconds["read"] = 1e3 * (read - began)
        yield job
        count += 1


def decode(job: FrameJob, claim: Callable[[int], object]) -> None:
    """Turn a job's frame into pixels; where that fails the frame has an error afterwards.

    `claim` is called with their number before they take memory.

    Raises
    ------
    NoRoom
        By `claim`; the frame is as it was.
    """
    frame = job.frame
    if frame.image is not None or frame.decode is None:
        return
    started = time.monotonic()
    try:
        frame.image = frame.decode(claim)
    except NoRoom:
        raise
    except Exception as error:  # decoders meet everything in untrusted files
        frame.error = first_line(error)
    frame.decode = None  # lets go of the bytes
    job.milliseconds["decode"] = 1e3 * (time.monotonic() - started)
