"""Training methods: their phases as data, and the losses of a phase.

QKD: Kim et al. 2019, arXiv:1911.12491. SQAKD: Zhao and Zhao, AISTATS 2024 (the float network is
the only teacher, without labels). PTQ trains nothing. "float" trains the float network.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

TEACHERS = ("none", "frozen", "learns")


@dataclass(frozen=True)
class Phase:
    """A part of the training with its own loss.

    The student minimises ``labels * CE(S) + distil * tau^2 * KL(p_T || p_S)``, the teacher's
    logits being constants. A teacher that learns minimises
    ``CE(T) + distil * tau^2 * KL(p_S || p_T)``, the student's logits being constants.

    Attributes
    ----------
    name : name of the phase in the log
    share : share of all epochs; the shares of a method need not add up to one
    teacher : "none", "frozen" (evaluation mode, no gradient) or "learns"
    labels : weight of the cross entropy in the student's loss
    distil : weight of the distillation in the student's loss
    """

    name: str
    share: float = 1.0
    teacher: str = "none"
    labels: float = 1.0
    distil: float = 0.0

    def __post_init__(self) -> None:
        if self.teacher not in TEACHERS:
            raise ValueError(f"teacher {self.teacher!r} is not one of {', '.join(TEACHERS)}")
        if self.share <= 0:
            raise ValueError(f"share {self.share} is not positive")
        if min(self.labels, self.distil) < 0 or self.labels + self.distil == 0:
            raise ValueError("labels and distil must not be negative, and not both zero")
        if self.distil and self.teacher == "none":
            raise ValueError(f"phase {self.name!r} distils without a teacher")


SELF_STUDYING = Phase("self-studying")
CO_STUDYING = Phase("co-studying", teacher="learns", distil=1.0)
TUTORING = Phase("tutoring", teacher="frozen", distil=1.0)


@dataclass(frozen=True)
class Method:
    """A training method.

    Attributes
    ----------
    phases : in their order; empty if nothing is trained
    quantises : whether the student is quantised, starting from a network trained in float
    teaches_itself : whether a study uses the student's own float network as the teacher
    """

    phases: tuple[Phase, ...]
    quantises: bool = True
    teaches_itself: bool = False


def has_teacher(phases: Iterable[Phase]) -> bool:
    """Return whether any phase has a teacher."""
    return any(phase.teacher != "none" for phase in phases)


METHODS = {
    "float": Method((Phase("float"),), quantises=False),
    "ptq": Method(()),
    "qat": Method((SELF_STUDYING,)),
    "qat+kd": Method((TUTORING,)),
    "sqakd": Method(
        (Phase("distilling", teacher="frozen", labels=0.0, distil=1.0),), teaches_itself=True
    ),
    "qkd": Method((SELF_STUDYING, CO_STUDYING, TUTORING)),
}


def epochs_of(phases: tuple[Phase, ...], epochs: int) -> list[Phase]:
    """Return the phase of every epoch, by the phases' shares; each phase has at least one epoch.

    Raises
    ------
    ValueError
        There are fewer epochs than phases.
    """
    if not phases:
        return []
    if epochs < len(phases):
        raise ValueError(f"{epochs} epochs for {len(phases)} phases; each needs at least one")
    total, share = sum(phase.share for phase in phases), 0.0
    plan: list[Phase] = []
    for index, phase in enumerate(phases):
        share += phase.share
        left = len(phases) - index - 1
        end = max(len(plan) + 1, min(round(epochs * share / total), epochs - left))
        plan += [phase] * (end - len(plan))
    return plan


def phase_losses(
    phase: Phase,
    student: Tensor,
    teacher: Tensor | None,
    labels: Tensor,
    temperature: float,
    label_smoothing: float = 0.0,
    class_weights: Tensor | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Return the student's loss and that of a teacher that learns (see `Phase`), batch means.

    Parameters
    ----------
    student, teacher : logits (N, classes); each is a constant in the other's loss
    labels : int64 (N,), or soft labels (N, classes), whose rows add up to 1
    temperature : tau of the distillation
    class_weights : (classes,), of the cross entropy with the labels
    """
    loss = student.new_zeros(())
    if phase.labels:
        loss = cross_entropy(student, labels, label_smoothing, class_weights)
    loss = phase.labels * loss
    if teacher is None:
        return loss, None
    if phase.distil:
        loss = loss + phase.distil * distillation(teacher.detach(), student, temperature)
    if phase.teacher != "learns":
        return loss, None
    own = cross_entropy(teacher, labels, label_smoothing, class_weights)
    return loss, own + phase.distil * distillation(student.detach(), teacher, temperature)


def cross_entropy(
    logits: Tensor, labels: Tensor, label_smoothing: float, class_weights: Tensor | None
) -> Tensor:
    """Return the mean cross entropy of the images, each weighted by its class.

    The sum is divided by the number of images, as PyTorch does for soft labels. For integer labels
    PyTorch divides by the sum of the batch's weights, so that processes with slices of a batch
    would not compute the same as one process.

    Parameters
    ----------
    logits : (N, classes)
    labels : int64 (N,), or soft labels (N, classes)
    class_weights : (classes,), or None for equal weights
    """
    if class_weights is not None and labels.ndim == 1:
        labels = F.one_hot(labels, logits.shape[1]).to(class_weights.dtype)
    return F.cross_entropy(logits, labels, class_weights, label_smoothing=label_smoothing)


def distillation(target: Tensor, learner: Tensor, temperature: float) -> Tensor:
    """Return ``tau^2 * KL(p_target || p_learner)`` with ``p = softmax(logits / tau)``.

    It is the mean over the batch, after Hinton et al. 2015, arXiv:1503.02531.

    Parameters
    ----------
    target, learner : logits (N, classes)
    temperature : tau
    """
    target, learner = target / temperature, learner / temperature
    divergence = F.kl_div(
        F.log_softmax(learner, 1), F.log_softmax(target, 1), reduction="batchmean", log_target=True
    )
    return temperature**2 * divergence
