"""Jobs: frames in the pipeline, with their times."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from tutelage.app.pipeline.pixel_budget import NoRoom
from tutelage.app.sources.frames import Frame, FrameSource
from tutelage.core.errors import first_line


class FrameJob:
    """A frame in the pipeline.

    Attributes
    ----------
    frame : the frame
    ticket : 0, 1, 2, ... in the order of the results
    began : monotonic time (s) at which its latency starts
    read : monotonic time (s) at which it had been read
    pixels : number of pixels of an image that it came with; 0 if decoded later or shared
    attempts : number of runners that have failed on it
    milliseconds : duration of each stage that is complete, ms
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
    limit : largest number of jobs; None for no limit
    has_room : function called before each frame. It waits for room, and ends the iteration by
        returning False. None if there is always room
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
        if frame.due is None:  # else it was read long before it was issued
            job.milliseconds["read"] = 1e3 * (read - began)
        yield job
        count += 1


def decode(job: FrameJob, claim: Callable[[int], object]) -> None:
    """Decode a job's frame in place; on failure the frame gets an error.

    Parameters
    ----------
    claim : function called with the number of pixels before they are allocated

    Raises
    ------
    NoRoom
        Raised by `claim`. The frame is unchanged.
    """
    frame = job.frame
    if frame.image is not None or frame.decode is None:
        return
    started = time.monotonic()
    try:
        frame.image = frame.decode(claim)
    except NoRoom:
        raise
    except Exception as error:  # untrusted files may raise anything
        frame.error = first_line(error)
    frame.decode = None  # releases the encoded bytes
    job.milliseconds["decode"] = 1e3 * (time.monotonic() - started)
