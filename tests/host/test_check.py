"""`tutelage check`: what is said of a network before any training."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="host/ needs PyTorch, which is not installed")

from torch import Tensor, nn  # noqa: E402

from tutelage.host.check.fit import fit_board, obstacle  # noqa: E402
from tutelage.host.check.refusals import refusals  # noqa: E402


class Bad(nn.Module):
    """Three things that no DPU has, on two ways that meet again."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.act = nn.GELU()
        self.norm = nn.GroupNorm(2, 8)
        self.fc = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.conv(x))
        y = self.norm(x)
        x = torch.relu(x + torch.cumsum(y, 1))
        return self.fc(x.mean((2, 3)))


def test_all_refusals_with_their_places() -> None:
    found = refusals(Bad(), (3, 16, 16))
    assert [refused.text.split("take ")[1].split(" at")[0] for refused in found] == [
        "GELU", "GroupNorm", "cumsum",
    ]  # fmt: skip
    assert {refused.file for refused in found} == {__file__}
    lines = [refused.line for refused in found]
    assert lines == sorted(lines) and all(lines) and all(refused.remedy for refused in found)


def test_nothing_is_refused() -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 4))
    assert refusals(network, (3, 8, 8)) == []
