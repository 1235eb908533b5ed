"""docs/reference/xmodel.md agrees with the code: tables are compared, examples are run."""

from __future__ import annotations

import re
from pathlib import Path

from tests.docs.markdown import blocks
from tutelage.core import fingerprint
from tutelage.core.fixed_point import MAX_SHIFT, least_bias_shift, pool_reciprocal
from tutelage.dpu.ops import limits
from tutelage.dpu.xmodel import file as xmodel
from tutelage.dpu.xmodel import tensor
from tutelage.dpu.xmodel.schema import GraphProto

PAGE = Path(__file__).resolve().parents[2] / "docs/reference/xmodel.md"
TEXT = PAGE.read_text(encoding="utf-8")


def _table(head: str) -> list[list[str]]:
    """The rows of the table whose first heading is `head`."""
    lines = TEXT.splitlines()
    (start,) = [n for n, line in enumerate(lines) if line.startswith(f"| {head} |")]
    rows: list[list[str]] = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            return rows
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return rows


def test_the_fields_are_the_schemas() -> None:
    pool = {"Graph": GraphProto.DESCRIPTOR}  # type: ignore[attr-defined]
    for descriptor in list(pool.values()):
        _collect(descriptor, pool)
    rows = _table("message")
    assert len(rows) == 8
    for name, documented in rows:
        fields = {}
        for part in re.split(r", (?=\d)", documented):
            number, field, *kind = part.split(" ", 2)
            fields[int(number)] = (field, kind[0] if kind else "string")
        found = {field.number: (field.name, _kind(field)) for field in pool[name].fields}
        assert fields == found


def _collect(descriptor: object, pool: dict[str, object]) -> None:
    for field in descriptor.fields:  # type: ignore[attr-defined]
        inner = field.message_type
        if inner is not None and inner.name not in pool:
            pool[inner.name] = inner
            _collect(inner, pool)


def _kind(field: object) -> str:
    names = {9: "string", 5: "int32", 13: "uint32"}  # of FieldDescriptorProto.Type
    inner = field.message_type  # type: ignore[attr-defined]
    if inner is not None and inner.GetOptions().map_entry:
        value = inner.fields_by_name["value"].message_type
        return f"map<string,{value.name}>"
    kind = inner.name if inner is not None else names[field.type]  # type: ignore[attr-defined]
    # Newer protobufs replace `label` by `is_repeated`.
    repeated = field.is_repeated if hasattr(field, "is_repeated") else field.label == 3  # type: ignore[attr-defined]
    return f"*{kind}" if repeated else str(kind)


def test_the_numbers_of_attribute_values_are_the_schemas() -> None:
    value = GraphProto.DESCRIPTOR.fields_by_name["graph_attr"]  # type: ignore[attr-defined]
    fields = value.message_type.fields_by_name["value"].message_type.fields
    scalars = TEXT[TEXT.index("oneof of scalars") : TEXT.index("and maps from")]
    types = r"bool|int32|uint32|int64|uint64|float|double|string|bytes"
    kinds = {int(n): kind for n, kind in re.findall(rf"\b(\d+) ({types})\b", scalars)}
    for field in fields:
        kind = field.name.removesuffix("_value").removesuffix("_vec")
        if field.number < 22:
            assert kinds.pop(field.number) == kind
        else:
            assert kind.startswith("map_string_2_")
    assert kinds == {} and {field.number for field in fields} == set(range(4, 33))


def test_the_pools_factors() -> None:
    for windows, factor in _table("window"):
        numerator, denominator = map(int, factor.split("/"))
        for window in windows.split(", "):
            width, height = map(int, window.split("x"))
            found, shift = pool_reciprocal(width, height)
            assert found / 2**shift == numerator / denominator


def test_documented_bounds() -> None:
    assert (xmodel.MAX_FILE_BYTES, xmodel.MAX_FIELDS) == (1 << 30, 1_000_000)
    assert (tensor.MAX_ELEMENTS, tensor.MAX_RANK) == (2**29, 8)
    assert MAX_SHIFT == 16 and least_bias_shift(3) == -(24 - (8 + 3))
    assert limits.CHANNEL_PARALLEL == 16
    kinds = re.findall(r"(\d) ([A-Z]+)", TEXT[TEXT.index("`data_type`:") :].split(";")[0])
    assert {name: int(n) for n, name in kinds} == {k.name: k.value for k in tensor.DataType.Type}


def test_the_examples_run() -> None:
    examples = [block for block in blocks(PAGE) if block.language == "python"]
    assert len(examples) == 3
    for block in examples:
        exec("\n".join(block.lines), {})  # the page's own code, from the repository


def test_the_fingerprints_are_the_codes() -> None:
    families = {int(byte, 16): name for byte, name in _table("highest byte")}
    assert families == fingerprint.FAMILIES
    sizes = [(int(bits), name, int(rows), int(channels)) for bits, name, rows, channels in
             _table("lowest bits")]  # fmt: skip
    assert sizes == [(n, a.name, a.rows, a.channels) for n, a in enumerate(fingerprint.ARRAYS)]
