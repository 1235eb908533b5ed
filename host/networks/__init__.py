"""Networks to teach, and where their presets live."""

from host.networks.catalogue import PRESETS, create

__all__ = ["PRESETS", "create"]
