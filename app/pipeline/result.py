"""What became of one frame: the form in which results reach the outputs."""

from __future__ import annotations

from dataclasses import dataclass, field

from tutelage.app.sources.frames import Frame

# What is timed, in ms. read: getting the frame, which of a live source is waiting for it.
# wait: until it is taken. decode: image files and JPEGs into pixels. preprocess: into the DPU's
# buffer. infer: from submission until the output is there. postprocess: to labels.
# total: from the begin of reading, of a live source from the frame's arrival, until the result
# is given out in order.
STAGES = ("read", "wait", "decode", "preprocess", "infer", "postprocess", "total")


@dataclass(slots=True)
class Result:
    """What became of one frame.

    Attributes
    ----------
    frame : the frame itself, image included
    top : (label, confidence 0..1) of the best classes, best first; empty after an error
    true_label : the label it should have, None where that is not known
    error : why there is no classification
    milliseconds : per stage of STAGES
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
        """Whether the best label is the true one; None where either is missing."""
        if self.true_label is None or not self.top:
            return None
        return self.label == self.true_label
