"""The protobuf schema of an .xmodel file, built at import time.

An .xmodel is one proto3 message ``serial_v2.Graph``. The descriptors are made
from the table below instead of protoc's output, because generated code is tied to
the runtime's major version: this source file works with every protobuf runtime
from 3.20 on. Field numbers: XIR's ``graph_proto_v2.proto``
(Apache-2.0).
"""

from __future__ import annotations

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_F = descriptor_pb2.FieldDescriptorProto
_SCALARS = {
    "bool": _F.TYPE_BOOL,
    "int32": _F.TYPE_INT32,
    "uint32": _F.TYPE_UINT32,
    "int64": _F.TYPE_INT64,
    "uint64": _F.TYPE_UINT64,
    "float": _F.TYPE_FLOAT,
    "double": _F.TYPE_DOUBLE,
    "string": _F.TYPE_STRING,
    "bytes": _F.TYPE_BYTES,
}
_PACKAGE = "serial_v2"

# One line per field: "number name type", where the type may begin with "*" (repeated) or "|"
# (member of the oneof `value`) or be "map<K,V>". Non-scalar types are messages of this package.
_MESSAGES: dict[str, list[str]] = {
    "Bytes": ["1 value bytes"],
    "BoolVec": ["1 value *bool"],
    "Int32Vec": ["1 value *int32"],
    "Uint32Vec": ["1 value *uint32"],
    "Int64Vec": ["1 value *int64"],
    "Uint64Vec": ["1 value *uint64"],
    "FloatVec": ["1 value *float"],
    "DoubleVec": ["1 value *double"],
    "StringVec": ["1 value *string"],
    "BytesVec": ["1 value *bytes"],
    "MapString2Int32": ["1 value map<string,int32>"],
    "MapString2Uint32": ["1 value map<string,uint32>"],
    "MapString2Int64": ["1 value map<string,int64>"],
    "MapString2Uint64": ["1 value map<string,uint64>"],
    "MapString2String": ["1 value map<string,string>"],
    "MapString2Bytes": ["1 value map<string,Bytes>"],
    "MapString2Int32Vec": ["1 value map<string,Int32Vec>"],
    "MapString2Uint32Vec": ["1 value map<string,Uint32Vec>"],
    "MapString2Int64Vec": ["1 value map<string,Int64Vec>"],
    "MapString2Uint64Vec": ["1 value map<string,Uint64Vec>"],
    "MapString2StringVec": ["1 value map<string,StringVec>"],
    "AttrValue": [
        "4 bool_value |bool",
        "5 int32_value |int32",
        "6 uint32_value |uint32",
        "7 int64_value |int64",
        "8 uint64_value |uint64",
        "9 float_value |float",
        "10 double_value |double",
        "11 string_value |string",
        "12 bytes_value |Bytes",
        "13 bool_vec_value |BoolVec",
        "14 int32_vec_value |Int32Vec",
        "15 uint32_vec_value |Uint32Vec",
        "16 int64_vec_value |Int64Vec",
        "17 uint64_vec_value |Uint64Vec",
        "18 float_vec_value |FloatVec",
        "19 double_vec_value |DoubleVec",
        "20 string_vec_value |StringVec",
        "21 bytes_vec_value |BytesVec",
        "22 map_string_2_int32_value |MapString2Int32",
        "23 map_string_2_uint32_value |MapString2Uint32",
        "24 map_string_2_int64_value |MapString2Int64",
        "25 map_string_2_uint64_value |MapString2Uint64",
        "26 map_string_2_string_value |MapString2String",
        "27 map_string_2_bytes_value |MapString2Bytes",
        "28 map_string_2_int32_vec_value |MapString2Int32Vec",
        "29 map_string_2_uint32_vec_value |MapString2Uint32Vec",
        "30 map_string_2_int64_vec_value |MapString2Int64Vec",
        "31 map_string_2_uint64_vec_value |MapString2Uint64Vec",
        "32 map_string_2_string_vec_value |MapString2StringVec",
    ],
    "Tensor": [
        "1 tensor_name string",
        "2 tensor_dim *uint32",
        "5 data_type int32",
        "6 tensor_bit_width int32",
        "10 tensor_attr map<string,AttrValue>",
    ],
    "OpArg": ["1 arg_name string", "2 arg_ops *string"],
    "OPNode": [
        "1 op_name string",
        "2 op_type string",
        "3 op_attr map<string,AttrValue>",
        "4 args *OpArg",
        "5 output_tensor Tensor",
    ],
    "SubGraph": [
        "1 subgraph_name string",
        "3 op_name *string",
        "5 subg_attr map<string,AttrValue>",
        "10 subg_child *SubGraph",
    ],
    "AttrDef": [
        "1 name string",
        "3 occur_type int32",
        "4 default_value AttrValue",
        "6 list_length int32",
        "7 annotation string",
    ],
    "OpArgDef": [
        "1 name string",
        "2 occur_type int32",
        "3 data_type int32",
        "4 annotation string",
    ],
    "OpDef": [
        "1 name string",
        "2 input_args *OpArgDef",
        "3 attrs *AttrDef",
        "4 annotation string",
    ],
    "Graph": [
        "1 graph_name string",
        "5 op_node *OPNode",
        "10 subg_root SubGraph",
        "11 graph_attr map<string,AttrValue>",
        "101 op_defs *OpDef",
    ],
}


def _set_type(field: descriptor_pb2.FieldDescriptorProto, kind: str) -> None:
    if kind in _SCALARS:
        field.type = _SCALARS[kind]
    else:
        field.type = _F.TYPE_MESSAGE
        field.type_name = f".{_PACKAGE}.{kind}"


def _add_field(message: descriptor_pb2.DescriptorProto, line: str) -> None:
    number, name, kind = line.split(" ", 2)
    field = message.field.add(name=name, number=int(number), label=_F.LABEL_OPTIONAL)
    if kind.startswith("map<"):
        key, value = kind[4:-1].split(",")
        entry_name = "".join(p.capitalize() for p in name.split("_")) + "Entry"
        entry = message.nested_type.add(name=entry_name)
        entry.options.map_entry = True
        _set_type(entry.field.add(name="key", number=1, label=_F.LABEL_OPTIONAL), key)
        _set_type(entry.field.add(name="value", number=2, label=_F.LABEL_OPTIONAL), value)
        field.label = _F.LABEL_REPEATED
        field.type = _F.TYPE_MESSAGE
        field.type_name = f".{_PACKAGE}.{message.name}.{entry_name}"
    elif kind.startswith("*"):
        field.label = _F.LABEL_REPEATED
        _set_type(field, kind[1:])
    elif kind.startswith("|"):
        field.oneof_index = 0
        _set_type(field, kind[1:])
    else:
        _set_type(field, kind)


def _file() -> descriptor_pb2.FileDescriptorProto:
    file = descriptor_pb2.FileDescriptorProto(
        name="tutelage/xmodel.proto", package=_PACKAGE, syntax="proto3"
    )
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        if any("|" in line for line in fields):
            message.oneof_decl.add(name="value")
        for line in fields:
            _add_field(message, line)
    return file


_pool = descriptor_pool.DescriptorPool()
_pool.Add(_file())


def message_class(name: str) -> type:
    """Return the Python class of one of the schema's messages, e.g. ``"Graph"``."""
    descriptor = _pool.FindMessageTypeByName(f"{_PACKAGE}.{name}")
    return message_factory.GetMessageClass(descriptor)


GraphProto = message_class("Graph")
