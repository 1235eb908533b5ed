"""Tensors of a graph and their element types."""

from __future__ import annotations

import math
from collections.abc import Iterable
from enum import IntEnum
from typing import TYPE_CHECKING, Any

from tutelage.core.errors import DpuError
from tutelage.dpu.xmodel.attributes import AttrHolder

if TYPE_CHECKING:
    from tutelage.dpu.xmodel.op import Op

MAX_ELEMENTS = 1 << 29
"""Most elements of one tensor: seven times PointPillars' largest, 76.8 million."""

MAX_RANK = 8
"""Most dimensions of a tensor in a file; known models of AMD have four at most."""


class DataType:
    """Element type of a tensor: kind and width in bits, e.g. ``DataType("XINT8")``."""

    class Type(IntEnum):
        """The kinds, with their numbers in the file."""

        INT = 0
        UINT = 1
        XINT = 2
        XUINT = 3
        FLOAT = 4
        UNKNOWN = 5

    INT, UINT, XINT = Type.INT, Type.UINT, Type.XINT
    XUINT, FLOAT, UNKNOWN = Type.XUINT, Type.FLOAT, Type.UNKNOWN

    def __init__(self, name: str | DataType.Type = "UNKNOWN", bit_width: int = 0) -> None:
        if isinstance(name, DataType.Type):
            self.type, self.bit_width = name, bit_width
            return
        if not isinstance(name, str):
            raise TypeError(f"xir.DataType takes the name of a type, not {type(name).__name__}")
        kind = name.upper().rstrip("0123456789")
        if kind not in DataType.Type.__members__:
            raise DpuError(f"unknown data type {name!r}")
        self.type = DataType.Type[kind]
        digits = name[len(kind) :]
        self.bit_width = int(digits) if digits else bit_width

    @property
    def _text(self) -> str:
        return f"{self.type.name}{self.bit_width}".lower()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, DataType) and self._text == other._text

    def __hash__(self) -> int:
        return hash(self._text)

    def __str__(self) -> str:
        return f"'{self._text}'"

    def __repr__(self) -> str:
        return f"<xir.DataType '{self._text}'>"


class Tensor(AttrHolder):
    """The output of an op: name, dims (NHWC), element type, attributes."""

    def __init__(self, name: str, dims: Iterable[int], dtype: DataType | str) -> None:
        super().__init__()
        self._name = name
        self._dims = [int(dim) for dim in dims]
        self._data_type = DataType(dtype) if isinstance(dtype, str) else dtype
        self._producer: Op | None = None

    @staticmethod
    def clone(tensor: Tensor, /) -> Tensor:
        """Return a copy without a producer."""
        copy = Tensor(tensor.name, tensor.dims, tensor._data_type)
        copy._attrs = dict(tensor._attrs)
        return copy

    @property
    def name(self) -> str:
        """Name of the tensor, often not that of its op; a new name must be unique in the graph."""
        return self._name

    @name.setter
    def name(self, name: str) -> None:
        graph = self._producer.get_graph() if self._producer else None
        if name != self._name and graph and graph.get_tensor(name) is not None:
            raise DpuError(f"the graph already has a tensor called {name!r}")
        self._name = name

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return len(self._dims)

    @property
    def dims(self) -> list[int]:
        """Shape, batch first, channels last."""
        return list(self._dims)

    @property
    def dtype(self) -> str:
        """Element type in lower case, e.g. "xint8" or "float32"."""
        return self._data_type._text

    @property
    def is_int8(self) -> bool:
        """Whether the elements are int8; not part of the board's XIR."""
        return self.dtype in ("xint8", "int8")

    @property
    def producer(self) -> Op | Any:
        """The op that computes this tensor, or None."""
        return self._producer

    def get_element_num(self) -> int:
        """Return the number of elements."""
        return math.prod(self._dims)

    def get_data_size(self) -> int:
        """Return the size in bytes."""
        return self.get_element_num() * self._data_type.bit_width // 8

    def __repr__(self) -> str:
        return f"<xir.Tensor named '{self._name}'>"

    def __str__(self) -> str:
        what = f"shape: {self._dims}, type: '{self.dtype}', attrs: {self.get_attrs()}"
        return f"{{name: '{self._name}', {what}}}"
