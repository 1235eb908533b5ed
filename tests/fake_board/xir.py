"""A stand-in for the board's `xir`: a fixed compiled model for any file.

    data-fix (1, 8, 8, 3) -> [DPU: upload -> conv2d-fix -> download] -> fix2float (1, 10)

The file's name selects a form: "uncompiled" has no subgraphs, "cpu" has an operator for the
CPU at its end, "float" takes float and begins with float2fix, "bad" does not load,
"for-emulator" was compiled for the emulator.
"""

from __future__ import annotations

SIDE, CLASSES, INPUT_FIX_POINT, OUTPUT_FIX_POINT = 8, 10, -1, 2


class _Attributes:
    def __init__(self, **attributes):
        self._attributes = attributes

    def has_attr(self, name):
        return name in self._attributes

    def get_attr(self, name):
        return self._attributes[name]

    def get_attrs(self):
        return dict(self._attributes)


class Tensor(_Attributes):
    def __init__(self, name, dims, fix_point=None):
        super().__init__(**({} if fix_point is None else {"fix_point": fix_point}))
        self.name, self.dims = name, list(dims)
        self.dtype = "float32" if fix_point is None else "xint8"


class Op(_Attributes):
    def __init__(self, name, kind, dims, source=None, fix_point=None, **attributes):
        super().__init__(**attributes)
        self._name, self._type, self._source = name, kind, source
        self._tensor = Tensor(f"{name}_tensor", dims, fix_point)
        self._fanout = []
        if source is not None:
            source._fanout.append(self)

    def get_name(self):
        return self._name

    def get_type(self):
        return self._type

    def get_input_ops(self):
        return {"input": [self._source]} if self._source else {}

    def get_output_tensor(self):
        return self._tensor

    def get_fanout_ops(self):
        return list(self._fanout)

    def get_fanout_num(self):
        return len(self._fanout)


class Subgraph(_Attributes):
    def __init__(self, ops, children=(), **attributes):
        super().__init__(**attributes)
        self._ops, self._children = ops, list(children)

    @property
    def is_leaf(self):
        return not self._children

    def get_ops(self):
        return set(self._ops)

    def toposort_child_subgraph(self):
        return list(self._children)

    def get_input_tensors(self):
        sources = [op._source for op in self._ops]
        return {s.get_output_tensor() for s in sources if s is not None and s not in self._ops}

    def get_output_tensors(self):
        return {
            op.get_output_tensor()
            for op in self._ops
            if any(reader not in self._ops for reader in op.get_fanout_ops())
        }


class Graph:
    def __init__(self, ops, root):
        self._ops, self._root = ops, root

    @staticmethod
    def deserialize(path):
        if "bad" in path:
            raise RuntimeError("cannot parse this file\nsecond line")
        image, scores = (1, SIDE, SIDE, 3), (1, CLASSES)
        data = Op("image", "data-fix", image, fix_point=INPUT_FIX_POINT)
        begin = [data]
        if "float" in path:
            begin = [Op("image", "data", image)]
            begin.append(Op("quantised", "float2fix", image, begin[0], INPUT_FIX_POINT))
        upload = Op("up", "upload", image, begin[-1], INPUT_FIX_POINT)
        conv = Op("conv", "conv2d-fix", scores, upload, OUTPUT_FIX_POINT)
        download = Op("down", "download", scores, conv, OUTPUT_FIX_POINT)
        dpu = [upload, conv, download]
        end = [Op("scores", "fix2float", scores, download)]
        end[0]._attributes["fix_point"] = OUTPUT_FIX_POINT
        if "cpu" in path:
            end.append(Op("softmax", "softmax", scores, end[0], axis=-1))
        target = {"dpu_name": "DPUCZDX8G_ISA1_B4096", "dpu_fingerprint": 0x101000016010407}
        if "for-emulator" in path:
            target = {"dpu_name": "TUTELAGE_EMULATOR"}
        children = [
            Subgraph(begin[:1], device="USER"),
            *([Subgraph(begin[1:], device="CPU")] if begin[1:] else []),
            Subgraph(dpu, device="DPU", **target),
            Subgraph(end, device="CPU"),
        ]
        ops = begin + dpu + end
        return Graph(ops, Subgraph(ops, [] if "uncompiled" in path else children))

    def get_name(self):
        return "fake"

    def get_root_subgraph(self):
        return self._root

    def toposort(self):
        return list(self._ops)
