"""Results of frames, as outputs receive them."""

from __future__ import annotations

from dataclasses import dataclass, field

from tutelage.app.sources.frames import Frame

# The timed stages, in ms. read: reading the frame, or waiting for it if the source is live.
# wait: until a thread takes it. decode: image files and JPEGs to pixels. preprocess: pixels to the
# DPU's buffer. infer: from submission until the output is available. postprocess: output to labels.
# total: from the start of reading, or the frame's arrival from a live source, until the result is
# passed on in order.
STAGES = ("read", "wait", "decode", "preprocess", "infer", "postprocess", "total")


@dataclass(slots=True)
class Result:
    """The result of one frame.

    Attributes
    ----------
    frame : the frame, with its image
    top : (label, confidence 0..1) of the best classes, best first; empty after an error
    true_label : the correct label; None if unknown
    error : reason why there is no classification; None if there is one
    milliseconds : duration of each stage of STAGES, ms
    """

    frame: Frame
    top: list[tuple[str, float]] = field(default_factory=list)
    true_label: str | None = None
    error: str | None = None
    milliseconds: dict[str, float] = field(default_factory=dict)

    @property
    def label(self) -> str | None:
        """The best label; None after an error."""
        return self.top[0][0] if self.top else None

    @property
    def confidence(self) -> float | None:
        """The best label's confidence, 0..1; None after an error."""
        return self.top[0][1] if self.top else None

    @property
    def correct(self) -> bool | None:
        """Whether the best label is the true one; None if either is missing."""
        if self.true_label is None or not self.top:
            return None
        return self.label == self.true_label
