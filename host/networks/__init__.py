"""Networks to teach, and where their presets live."""

from tutelage.host.networks.catalogue import PRESETS, NetworkError, create, create_with

__all__ = ["PRESETS", "NetworkError", "create", "create_with"]
