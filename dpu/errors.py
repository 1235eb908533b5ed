"""What can go wrong, each with a message that is one clear line."""

from __future__ import annotations


class DpuError(RuntimeError):
    """Base of every error that dpu/ raises on purpose."""


class XmodelError(DpuError):
    """The file is no usable .xmodel: truncated, corrupt, too large or of another kind."""


class UnknownOpError(DpuError):
    """An op type that neither the built-in operators nor a plugin implements."""


class UnsupportedError(DpuError):
    """A known op with attributes, shapes or types that are not implemented."""


class NotEmulatedError(NotImplementedError, AttributeError):
    """A name of the board's API that the emulation leaves out; `hasattr` says no to it."""


def not_emulated(where: str, name: str) -> Exception:
    """The error for a missing name; names with underscores are Python's own affair."""
    if name.startswith("_"):
        return AttributeError(f"{where} has no {name}")
    return NotEmulatedError(f"{where}.{name} is not emulated")
