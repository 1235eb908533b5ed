"""The ways to teach a quantised student, as data: phases, and what is learnt from whom in each.

QKD: Kim et al. 2019, arXiv:1911.12491. SQAKD: Zhao and Zhao, AISTATS 2024 (the float network
alone teaches, no labels). PTQ trains nothing. "float" trains the network itself.
"""

from __future__ import annotations

from dataclasses import dataclass

TEACHERS = ("none", "frozen", "learns")


@dataclass(frozen=True)
class Phase:
    """A stretch of training with one loss.

    The student minimises ``labels * CE(S) + distil * tau^2 * KL(p_T || p_S)``, the teacher's
    logits being constants. A teacher that learns minimises
    ``CE(T) + distil * tau^2 * KL(p_S || p_T)``, the student's logits being constants.

    Attributes
    ----------
    name : for the log
    share : of all epochs; the shares of a method need not add up to one
    teacher : "none", "frozen" (evaluation mode, no gradient) or "learns"
    labels, distil : weights of the two parts of the student's loss
    """

    name: str
    share: float = 1.0
    teacher: str = "none"
    labels: float = 1.0
    distil: float = 0.0

    def __post_init__(self) -> None:
        if self.teacher not in TEACHERS:
            raise ValueError(f"teacher {self.teacher!r} is none of {', '.join(TEACHERS)}")
        if self.share <= 0:
            raise ValueError(f"share {self.share} is not positive")
        if min(self.labels, self.distil) < 0 or self.labels + self.distil == 0:
            raise ValueError("labels and distil must not be negative, nor both zero")
        if self.distil and self.teacher == "none":
            raise ValueError(f"phase {self.name!r} distils without a teacher")


SELF_STUDYING = Phase("self-studying")
CO_STUDYING = Phase("co-studying", teacher="learns", distil=1.0)
TUTORING = Phase("tutoring", teacher="frozen", distil=1.0)

METHODS: dict[str, tuple[Phase, ...]] = {
    "float": (Phase("float"),),
    "ptq": (),
    "qat": (SELF_STUDYING,),
    "qat+kd": (TUTORING,),
    "sqakd": (Phase("distilling", teacher="frozen", labels=0.0, distil=1.0),),
    "qkd": (SELF_STUDYING, CO_STUDYING, TUTORING),
}


def epochs_of(phases: tuple[Phase, ...], epochs: int) -> list[Phase]:
    """The phase of every epoch: the shares, rounded so that each phase has an epoch.

    Raises
    ------
    ValueError
        There are fewer epochs than phases.
    """
    if not phases:
        return []
    if epochs < len(phases):
        raise ValueError(f"{epochs} epochs for {len(phases)} phases; each needs one")
    total, share = sum(phase.share for phase in phases), 0.0
    plan: list[Phase] = []
    for index, phase in enumerate(phases):
        share += phase.share
        left = len(phases) - index - 1
        end = max(len(plan) + 1, min(round(epochs * share / total), epochs - left))
        plan += [phase] * (end - len(plan))
    return plan
