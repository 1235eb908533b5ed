"""Power of a board's rails or of a PC, sampled while other code runs.

    from tutelage.board.power import Power

    with Power() as power:
        work()
    print(power.watts, power.joules)

If nothing can be measured, the figures are None, and `Power.reason` says why.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tutelage.board.power.sampler import Power, open_power
    from tutelage.board.power.sources.source import PowerError

__all__ = ["Power", "PowerError", "open_power"]


def __getattr__(name: str) -> Any:
    """Import the sampler, and numpy with it, when one of its names is used."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from tutelage.board.power import sampler

    return getattr(sampler, name)
