"""Untrusted files: one clear line and exit 2, never a traceback, a hang or unbounded memory."""

from __future__ import annotations

import random
import resource
from pathlib import Path

import numpy as np
import pytest

from tutelage.__main__ import main
from tutelage.core.text import shown
from tutelage.dpu.xmodel.schema import GraphProto


def _complaint(path: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """Return the line with which `inspect` refuses a file, after checking status and name."""
    assert main(["inspect", str(path)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("tutelage: ") and captured.err.count("\n") == 1
    assert shown(path) in captured.err
    return captured.err


def _cuts(size: int) -> list[int]:
    return [1 << power for power in range(40) if 1 << power < size]


def test_truncated_at_every_power_of_two(
    demo_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, cut = demo_model.read_bytes(), tmp_path / "cut.xmodel"
    for size in [*_cuts(len(data)), len(data) - 1]:
        cut.write_bytes(data[:size])
        assert "cut.xmodel" in _complaint(cut, capsys)


def test_amds_files_truncated(
    shared_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for model in sorted((shared_dir / "models").glob("*.xmodel")):
        data, cut = model.read_bytes(), tmp_path / "cut.xmodel"
        for size in _cuts(len(data)):
            cut.write_bytes(data[:size])
            _complaint(cut, capsys)


@pytest.mark.parametrize(
    "content, words",
    [
        (b"", "empty file"),
        (b"\x89PNG\r\n\x1a\n" + bytes(64), "not an .xmodel"),
        (b"PK\x03\x04" + bytes(64), "not an .xmodel"),
        (b"name = 'net'\n", "not an .xmodel"),
        (b"\x0a\x04fake", "it has no ops"),
    ],
)
def test_wrong_files(
    content: bytes, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "x.xmodel"
    path.write_bytes(content)
    assert words in _complaint(path, capsys)


def test_no_file_a_directory_and_a_name_with_control_characters(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "No such file" in _complaint(tmp_path / "none.xmodel", capsys)
    assert "directory" in _complaint(tmp_path, capsys)
    assert "\x1b" not in _complaint(tmp_path / "\x1b[31m\nred", capsys)


def test_random_bytes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, path = random.Random(7), tmp_path / "x.xmodel"
    for size in (1, 2, 10, 100, 1000, 10_000, 100_000):
        for _ in range(10):
            path.write_bytes(source.randbytes(size))
            _complaint(path, capsys)


@pytest.mark.slow
def test_flipped_bytes_of_a_real_model(
    demo_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Such a file may still be a model: it either runs or is refused."""
    source, path = random.Random(11), tmp_path / "x.xmodel"
    image, out = tmp_path / "x.npy", tmp_path / "y.npy"
    np.save(image, np.zeros((1, 28, 28, 1), np.int8))
    original = demo_model.read_bytes()
    for _ in range(300):
        data = bytearray(original)
        for _ in range(source.randint(1, 8)):
            # Mostly outside the weights, where the structure is.
            data[source.choice([source.randrange(len(data)), source.randrange(4000)])] ^= (
                1 << source.randrange(8)
            )
        path.write_bytes(data)
        command = ["run", str(path), "--input", str(image), "--output", str(out)]
        assert main([*command, "--engine", source.choice(["fast", "reference"])]) in (0, 1, 2)
        assert capsys.readouterr().err.count("\n") <= 1


def _field(number: int, content: bytes) -> bytes:
    length, size = len(content), b""
    while length > 127:
        size, length = size + bytes([length & 127 | 128]), length >> 7
    return bytes([number << 3 | 2]) + size + bytes([length]) + content


@pytest.mark.parametrize("packed", [False, True])
def test_a_bomb_of_fields(packed: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "bomb.xmodel"
    dims = _field(5, _field(5, _field(2, bytes(20_000_000))))  # of the output of an op
    path.write_bytes(dims if packed else b"\x2a\x00" * 2_000_000)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert "fields" in _complaint(path, capsys)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 100_000  # KiB


def test_a_bomb_of_elements(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    graph = GraphProto(graph_name="big")
    node = graph.op_node.add(op_name="image", op_type="data-fix")
    node.output_tensor.tensor_dim.extend([60_000] * 4)
    node.output_tensor.data_type, node.output_tensor.tensor_bit_width = 2, 8
    graph.subg_root.SetInParent()
    path = tmp_path / "big.xmodel"
    path.write_bytes(graph.SerializeToString())
    assert "is empty or too large" in _complaint(path, capsys)


def test_a_graph_that_bites_its_tail(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    graph = GraphProto(graph_name="cycle")
    for name, source in (("a", "b"), ("b", "a")):
        node = graph.op_node.add(op_name=name, op_type="relu")
        node.args.add(arg_name="input", arg_ops=[source])
        node.output_tensor.tensor_dim.extend([1, 2])
        node.output_tensor.data_type, node.output_tensor.tensor_bit_width = 4, 32
    graph.subg_root.SetInParent()
    path = tmp_path / "cycle.xmodel"
    path.write_bytes(graph.SerializeToString())
    assert "cycle" in _complaint(path, capsys)


def _one_op(path: Path, op_type: str, data_type: int, dims: list[int]) -> None:
    """A file with an input and an op that reads it, whose tensor has a given data type."""
    graph = GraphProto(graph_name="rnn")
    data = graph.op_node.add(op_name="image", op_type="data")
    node = graph.op_node.add(op_name="layer", op_type=op_type)
    node.args.add(arg_name="input", arg_ops=["image"])
    for op, kind in ((data, 4), (node, data_type)):
        op.output_tensor.tensor_dim.extend(dims)
        op.output_tensor.data_type, op.output_tensor.tensor_bit_width = kind, 32
    data.op_attr["shape"].int32_vec_value.value.extend(dims)
    graph.subg_root.SetInParent()
    path.write_bytes(graph.SerializeToString())


def test_refusals_of_data_types_and_ops_name_the_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """For example files for DPUs for recurrent networks, which have their own ops and types."""
    path, image = tmp_path / "rnn.xmodel", tmp_path / "in.npy"
    np.save(image, np.zeros((1, 4), np.float32))
    _one_op(path, "relu", 8, [1, 4])
    assert f"{path}: op 'layer': data type 8 is unknown" in _complaint(path, capsys)
    _one_op(path, "lstm", 4, [1, 4])
    assert main(["inspect", str(path)]) == 0
    assert "not built in, need --plugin: lstm" in capsys.readouterr().out
    for command in (
        ["run", str(path), "--input", str(image), "--output", str(tmp_path / "o.npy")],
    ):
        assert main(command) == 2
        error = capsys.readouterr().err
        assert (
            error.startswith(f"tutelage: {path}: ") and "lstm" in error and error.count("\n") == 1
        )
