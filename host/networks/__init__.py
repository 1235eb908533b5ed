"""Networks to teach, and where their presets live."""

from tutelage.host.networks.catalogue import PRESETS, create

__all__ = ["PRESETS", "create"]
