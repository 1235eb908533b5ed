"""Damaged data sets and results of training: WebDataset shards, results.json."""

from __future__ import annotations

import io
import json
import tarfile
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import strategies as st

pytest.importorskip("torch", reason="host/ needs PyTorch, which is not installed")

from tests.fuzz.byte_edits import EDITS, edited
from tests.fuzz.harness import fuzz, one_line, scratch
from tutelage.core.results.typed_json import ResultsError
from tutelage.host.train.data import DataError, load
from tutelage.host.train.results import RESULTS, read_run_results

_BLOCK = tarfile.BLOCKSIZE


def _shard() -> bytes:
    """Three samples, one of them with a long name, which needs extra headers."""
    picture = cv2.imencode(".png", np.zeros((8, 8, 3), np.uint8))[1].tobytes()
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name in ("a", "b" * 150, "c"):
            for suffix, content in (("png", picture), ("cls", b"1")):
                member = tarfile.TarInfo(f"{name}.{suffix}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    return stream.getvalue()


_SHARD = _shard()
_HEADERS = [at for at in range(0, len(_SHARD), _BLOCK) if _SHARD[at + 257 : at + 262] == b"ustar"]


def _with_sum(data: bytearray, at: int) -> None:
    """Correct a header's checksum, so that tarfile accepts it."""
    block = data[at : at + 148] + b" " * 8 + data[at + 156 : at + _BLOCK]
    data[at + 148 : at + 156] = b"%06o\0 " % sum(block)


def _load(data: bytes) -> None:
    folder = scratch() / "shards"
    folder.mkdir(exist_ok=True)
    (folder / "a.tar").write_bytes(data)
    for split in ("train", "test"):
        try:
            found = load("webdataset", folder, split, 8, memory=0)
            assert 1 <= len(found) <= len(data) // _BLOCK
            found.pixels()
        except DataError as error:
            one_line(error)


@fuzz(EDITS, 60)
def test_shards(edits: Any) -> None:
    """Changed bytes anywhere in a shard."""
    _load(edited(_SHARD, edits))


_FIELDS = st.lists(
    st.tuples(
        st.sampled_from(_HEADERS),
        st.sampled_from([0, 100, 124, 136, 156, 157, 257, 345]),  # name, mode, size, type, ...
        st.binary(min_size=1, max_size=12)
        | st.sampled_from([b"77777777777\0", b"\x80" + b"\xff" * 11, b"\xff" * 12, b"x", b"L",
                           b"S", b"2", b"g", b"-0000000001\0"]),
    ),
    min_size=1, max_size=3,
)  # fmt: skip


@fuzz(_FIELDS, 80)
def test_shard_headers(case: Any) -> None:
    """False fields of its headers with a correct checksum."""
    data = bytearray(_SHARD)
    for at, field, value in case:
        data[at + field : at + field + len(value)] = value
        _with_sum(data, at)
    _load(bytes(data))


_RESULTS = {
    "method": "float", "epochs": 3, "kept_epoch": 2, "images": 9, "accuracy": 66.7,
    "top5_accuracy": None, "validation_accuracy": 50.0, "teacher_accuracy": None,
    "classes": [{"name": "a", "images": 9, "correct": 6, "accuracy": 66.7,
                 "predicted": {"a": 6, "b": 3}},
                {"name": "b", "images": 0, "correct": 0, "accuracy": None, "predicted": {}}],
}  # fmt: skip


@fuzz(EDITS, 40)
def test_training_results(edits: Any) -> None:
    """Damaged results.json of a run."""
    (scratch() / RESULTS).write_bytes(edited(json.dumps(_RESULTS).encode(), edits))
    try:
        read_run_results(scratch())
    except ResultsError as error:
        one_line(error)
