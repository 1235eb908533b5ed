"""XIR's definitions of op types: arguments and attributes, as in the `op_defs` of an .xmodel.

XIR itself writes a definition of every op type it knows. Files written here have only those of the
types that they use, without annotations. Source: the op_defs of files written by AMD's exporter
(XIR 2.5, Apache-2.0); a test compares them with such a file.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from tutelage.core.errors import DpuError

REQUIRED, OPTIONAL, REPEATED, REQUIRED_AND_REPEATED = range(4)
"""Occurrence of an argument or attribute, with its number in the file."""

INT, FLOAT = 0, 4
"""Data types of argument tensors, with their numbers in the file."""

Argument = tuple[str, int, int]
"""Name, occurrence, data type."""

Attribute = tuple[str, int, str, Any, int]
"""Name, occurrence, kind of the value (a field of AttrValue), default, list length (1 for
scalars, 0 for any)."""


@dataclass(frozen=True)
class Definition:
    """The arguments and attributes of an op type."""

    arguments: tuple[Argument, ...] = ()
    attributes: tuple[Attribute, ...] = ()

    def check_inputs(self, counts: Mapping[str, int], what: str) -> None:
        """Verify an op's input counts by argument.

        Raises
        ------
        DpuError
            `what` has no such argument, or the argument takes another number of inputs.
        """
        occurrences = {name: occurs for name, occurs, _ in self.arguments}
        unknown = [name for name in counts if name not in occurrences]
        if unknown:
            raise DpuError(f"{what} has no argument {unknown[0]!r}")
        for name, occurs in occurrences.items():
            count = counts.get(name, 0)
            least, most, text = _TAKES[occurs]
            if not least <= count <= most:
                raise DpuError(f"{what}: argument {name!r} takes {text}, not {count}")

    def check_attributes(self, given: Iterable[str], what: str) -> None:
        """Verify that an op has the required attributes.

        Raises
        ------
        DpuError
            A required attribute of `what` is missing.
        """
        names = set(given)
        for name, occurs, *_ in self.attributes:
            if occurs == REQUIRED and name not in names:
                raise DpuError(f"{what} lacks the required attribute {name!r}")

    def kinds(self) -> dict[str, str]:
        """Return attribute name -> kind of its value."""
        return {name: kind for name, _, kind, _, _ in self.attributes}

    def defaults(self) -> dict[str, Any]:
        """Return the default values of the optional attributes."""
        return {
            name: list(default) if isinstance(default, list) else default
            for name, occurs, _, default, _ in self.attributes
            if occurs == OPTIONAL
        }


_TAKES = {
    REQUIRED: (1, 1, "one input"),
    OPTIONAL: (0, 1, "at most one input"),
    REPEATED: (0, math.inf, "any number of inputs"),
    REQUIRED_AND_REPEATED: (1, math.inf, "at least one input"),
}

ONE_INPUT: tuple[Argument, ...] = (("input", REQUIRED, FLOAT),)
INPUTS: tuple[Argument, ...] = (("input", REQUIRED_AND_REPEATED, FLOAT),)

KERNEL: tuple[Attribute, ...] = (
    ("kernel", REQUIRED, "int32_vec_value", [], 2),
    ("stride", REQUIRED, "int32_vec_value", [], 2),
)
PADS: tuple[Attribute, ...] = (
    ("pad_mode", REQUIRED, "string_value", "", 1),
    ("pad", OPTIONAL, "int32_vec_value", [0, 0, 0, 0], 4),
)
