"""Models to damage: one op of every type, small networks in both forms, and the demo's files."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tutelage.dpu.compiler.builder import CompiledModel
from tutelage.dpu.compiler.quantised import QuantisedModel
from tutelage.dpu.ops.registry import computed_types, is_int8
from tutelage.dpu.xmodel.graph import Graph
from tutelage.dpu.xmodel.op import Op
from tutelage.dpu.xmodel.tensor import Tensor

ROOT = Path(__file__).resolve().parent.parent.parent
DEMO = ROOT / "app" / "demo"
SHARED = ROOT.parent / "shared" / "models"

_DIMS = [1, 4, 4, 2]
_WINDOW = {"kernel": [2, 2], "stride": [1, 1], "pad": [0, 0, 0, 0], "pad_mode": "FLOOR"}
_ATTRS: dict[str, dict[str, Any]] = {
    "conv2d": _WINDOW,
    "depthwise-conv2d": _WINDOW,
    "transposed-conv2d": _WINDOW,
    "transposed-depthwise-conv2d": _WINDOW,
    "maxpool2d": _WINDOW,
    "avgpool2d": _WINDOW,
    "pool": {**_WINDOW, "type": "AVG"},
    "concat": {"axis": 3},
    "softmax": {"axis": -1},
    "reshape": {"shape": [1, 32]},
    "flatten": {"start_axis": 1, "end_axis": -1},
    "squeeze": {"axis": []},
    "transpose": {"order": [0, 3, 1, 2]},
    "upsample": {"scale": [2.0, 2.0], "mode": "NEAREST"},
    "resize": {"scale": [1.5, 2.0], "mode": "BILINEAR", "half_pixel_centers": True},
    "downsample": {"scale": [2.0, 2.0], "mode": "BILINEAR"},
    "tile": {"stride": 2, "reverse": False},
    "gstiling": {"stride": 2, "reverse": False},
    "pixel-shuffle": {"scale": 2, "upscale": False},
    "priorbox": {
        "min_sizes": [21.0],
        "max_sizes": [45.0],
        "aspect_ratio": [2.0],
        "flip": True,
        "clip": False,
        "variance": [0.1],
        "step": [8.0],
        "offset": 0.5,
    },
    "l2_normalize": {"axis": [3]},
    "nndct_normalize": {"p": 2, "dim": [2, 3], "keepdim": False},
    "aten::mean": {"shape": [1, 4]},
    "stack": {"axis": 1},
    "clamp": {"min": -1.0, "max": 1.0},
    "nndct_clamp": {"min": -1.0},
    "pad": {"paddings": [0, 0, 1, 1, 1, 1, 0, 0], "mode": "CONSTANT"},
    "strided_slice": {"begin": [0] * 4, "end": _DIMS, "strides": [1] * 4},
    "fix": {"fix_point": 4, "bit_width": 8, "if_signed": True, "round_mode": "DPU_ROUND"},
    "float2fix": {"fix_point": 4, "bit_width": 8, "if_signed": True, "round_mode": "DPU_ROUND"},
    "fix2float": {"fix_point": 4},
    "leaky-relu": {"alpha": 0.1},
}
_WEIGHTS = {
    "conv2d": [3, 2, 2, 2],
    "depthwise-conv2d": [1, 2, 2, 2],
    "transposed-conv2d": [3, 2, 2, 2],
    "transposed-depthwise-conv2d": [1, 2, 2, 2],
    "inner-product": [3, 4, 4, 2],
}
_VECTORS = {"prelu": ("weight",), "scale": ("scale", "bias")}
_TWO_INPUTS = ("concat", "eltwise", "depthwise", "add", "sub", "mul", "div", "min", "max", "stack",
               "priorbox")  # fmt: skip

KINDS = sorted({kind for kinds in computed_types() for kind in kinds})
"""Every op type that something computes."""


def bases() -> list[str]:
    """Names of the models that `base` returns, with AMD's if they are beside the repository."""
    amd = sorted(path.name for path in SHARED.glob("*.xmodel")) if SHARED.is_dir() else []
    small = [name for name in amd if (SHARED / name).stat().st_size < 1 << 20]
    return [*_NETWORKS, *KINDS, *small]


@functools.cache
def base(name: str) -> bytes:
    """The bytes of a model."""
    if name.endswith(".xmodel"):
        folder = DEMO if (DEMO / name).exists() else SHARED
        return (folder / name).read_bytes()
    graph = _NETWORKS[name]() if name in _NETWORKS else one_op(name)
    return bytes(graph.to_proto().SerializeToString(deterministic=True))


def one_op(kind: str) -> Graph:
    """A graph of one op of this type with its inputs."""
    graph, plain = Graph(kind), kind.removesuffix("-fix")
    fixed = is_int8(kind) or kind == "fix2float"
    values = "XINT8" if fixed else "FLOAT32"
    count = 2 if plain in _TWO_INPUTS or plain == "matmul" else 1
    data = "data-fix" if fixed else "data"
    sources = [
        _fixed(graph.create_op(f"x{i}", data, {"shape": _dims(plain, i), "data_type": values}))
        for i in range(count)
    ]
    inputs = {"input": sources}
    if plain in _WEIGHTS:
        inputs["weights"] = [_constant(graph, "weights", _WEIGHTS[plain], fixed)]
        inputs["bias"] = [_constant(graph, "bias", [2 if "depthwise" in plain else 3], fixed)]
    for name in _VECTORS.get(plain, ()):
        inputs[name] = [_constant(graph, name, [2], fixed)]
    attrs = dict(_ATTRS.get(plain, {}))
    if plain.startswith("reduction_"):
        attrs = {"axis": [1, 2], "keep_dims": True}
    _fixed(graph.create_op("y", kind, attrs, inputs))
    return graph


def _dims(plain: str, number: int) -> list[int]:
    if plain == "matmul":
        return [1, 4, 3] if number else [1, 2, 4]
    return _DIMS


def _constant(graph: Graph, name: str, dims: list[int], fixed: bool) -> Op:
    values = np.ones(dims, np.int8 if fixed else np.float32)
    attrs = {"shape": dims, "data_type": "XINT8" if fixed else "FLOAT32", "data": values.tobytes()}
    return _fixed(graph.create_op(name, "const-fix" if fixed else "const", attrs))


def _fixed(op: Op) -> Op:
    tensor: Tensor = op.get_output_tensor()
    tensor.set_attrs({"fix_point": 4, "bit_width": 8, "if_signed": True})
    return op


def _network(kind: Callable[[str], Any]) -> Callable[[], Graph]:
    """Two convolutions, a pool, a concat, a sum and a dense layer."""

    def make() -> Graph:
        model, ones = kind("small"), np.ones
        x = model.input("image", [1, 8, 8, 3], 5)
        a = model.conv2d("a", x, ones((4, 3, 3, 3), np.int8), 6, ones(4, np.int8), 5, 5,
                         pad=[1, 1, 1, 1], nonlinear="RELU")  # fmt: skip
        b = model.conv2d("b", a, ones((4, 1, 1, 4), np.int8), 6, None, 0, 5)
        c = model.add("c", [a, b], 4)
        d = model.concat("d", [model.max_pool("p", c, (2, 2), (2, 2)),
                               model.avg_pool("q", c, (2, 2), (2, 2), 4)])  # fmt: skip
        e = model.reshape("r", d, [1, 1, 1, 128])
        model.output(model.conv2d("f", e, ones((5, 1, 1, 128), np.int8), 6, None, 0, 3))
        graph: Graph = model.finish()
        return graph

    return make


_NETWORKS: dict[str, Any] = {
    "compiled": _network(CompiledModel),
    "quantised": _network(QuantisedModel),
    "model.xmodel": None,
    "quantised.xmodel": None,
}
