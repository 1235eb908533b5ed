"""Networks to train and quantise: the presets, and networks of the user's own code."""

from tutelage.host.networks.catalogue import PRESETS, NetworkError, create, create_with, is_own

__all__ = ["PRESETS", "NetworkError", "create", "create_with", "is_own"]
