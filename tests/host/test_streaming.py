"""Streamed images: the same pixels, order and weights as in memory, in any process."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="host/ needs PyTorch, which is not installed")
pytest.importorskip("accelerate", reason="host/ needs accelerate, which is not installed")

from tutelage.core.images.image_files import find_images, walk_images  # noqa: E402
from tutelage.host.train import checkpoint  # noqa: E402
from tutelage.host.train.config import make_config  # noqa: E402
from tutelage.host.train.data import DataError, DataSet, load  # noqa: E402
from tutelage.host.train.data.augmentation import Augmentation  # noqa: E402
from tutelage.host.train.data.batching import SHARDS_AT_ONCE, batches  # noqa: E402
from tutelage.host.train.data.path_table import PathTable  # noqa: E402
from tutelage.host.train.data.reading import Reader, Request, readable_inputs, worker_count  # noqa: E402
from tutelage.host.train.evaluation import evaluate  # noqa: E402
from tutelage.host.train.loop import CHECKPOINT, STUDENT, train  # noqa: E402

NAMES = st.text("ab.\udcff ", min_size=1, max_size=5).filter(lambda name: set(name) != {"."})


def _write(path: Path, rgb: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.ascontiguousarray(rgb[..., ::-1]))
    return path


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Pictures of several sizes and of two classes, 12 of a and 8 of b."""
    rng = np.random.default_rng(0)
    for number in range(20):
        shape = int(rng.integers(9, 40)), int(rng.integers(9, 40)), 3
        name = f"{'a' if number < 12 else 'b'}/{'deep/' * (number % 3)}{number:02}.png"
        _write(tmp_path / "photos" / name, rng.integers(0, 256, shape, np.uint8))
    return tmp_path / "photos"


# -- many paths --------------------------------------------------------------------------------


@given(st.lists(st.lists(NAMES, min_size=1, max_size=3).map("/".join), max_size=20), st.data())
def test_a_table_of_paths_is_a_list_of_paths(inside: list[str], data: st.DataObject) -> None:
    folder = Path("some/folder")
    table, paths = PathTable(folder, inside), [folder / path for path in inside]
    assert list(table) == paths and len(table) == len(paths)
    start, stop = data.draw(st.integers(-3, 25)), data.draw(st.integers(-3, 25))
    assert list(table[start:stop]) == paths[start:stop]
    if paths:
        rows = data.draw(st.lists(st.integers(0, len(paths) - 1), max_size=9))
        part = table.take(np.array(rows, np.int64))
        assert list(part) == [paths[row] for row in rows]
        assert list(part[1:]) == [paths[row] for row in rows[1:]]


def test_a_table_of_paths_is_small() -> None:
    table = PathTable(Path("/data/train"), (f"n{i % 999:08}/n_{i:08}.JPEG" for i in range(20_000)))
    assert len(table._names) + table._ends.nbytes + table._rows.nbytes < 20_000 * 50


def test_the_walk_is_in_the_order_of_sorted_paths(tmp_path: Path) -> None:
    for name in ("b/x.png", "b.png", "b/a/x.png", "b-c/x.png", "a.png", "b/a.png", "c/d/e.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    found = [Path(path) for path in walk_images(tmp_path, Counter())]
    assert found == sorted(found) == find_images(tmp_path).images and len(found) == 7


# -- the same as in memory ---------------------------------------------------------------------


@pytest.mark.parametrize("size", [16, [12, 20]])
@pytest.mark.parametrize("split", ["train", "test"])
def test_a_streamed_folder_equals_one_in_memory(photos: Path, split: str, size: Any) -> None:
    kept = load("folder", photos, split, size)
    streamed = load("folder", photos, split, size, memory=0)
    assert streamed.is_streamed and not kept.is_streamed
    assert (streamed.shape, streamed.form) == (kept.shape, kept.form)
    assert kept.shape == (3, 16, 16) if size == 16 else (3, 12, 20)
    assert list(streamed.files) == list(kept.files) and streamed.classes == kept.classes
    rows = torch.tensor([2, 0, 1])
    for one, other in (
        (kept, streamed),
        (kept.part(1, 3), streamed.part(1, 3)),
        (kept.subset(rows), streamed.subset(rows)),
        (kept.take(3), streamed.take(3)),
    ):
        assert torch.equal(one.images, other.images) and torch.equal(one.labels, other.labels)
        assert list(one.files) == list(other.files)
        assert other.is_streamed
    assert torch.equal(kept.inputs(rows), streamed.inputs(rows))
    assert streamed.pixels(rows).is_contiguous(memory_format=torch.channels_last)


def test_data_that_fits_is_in_memory(photos: Path) -> None:
    bytes_of_train = 17 * 8 * 8 * 3
    assert not load("folder", photos, "train", 8, memory=bytes_of_train).is_streamed
    assert load("folder", photos, "train", 8, memory=bytes_of_train - 1).is_streamed


def _requests(data: DataSet, augmentation: Augmentation) -> list[Request]:
    generator = torch.Generator().manual_seed(5)
    rows = torch.randperm(len(data), generator=generator).split(4)
    return [Request(0, part, augmentation.draw(len(part), generator), 7) for part in rows]


def test_workers_read_the_same_as_this_process(photos: Path) -> None:
    augmentation = Augmentation(flip=True, shift=2, cutout=3, random_resized_crop=0.2)
    data = load("folder", photos, "train", 16, memory=0)
    requests = _requests(data, augmentation)
    wanted = list(Reader((data,), augmentation)(requests))
    with Reader((data,), augmentation, workers=2) as reader:
        for _ in range(2):  # the same workers
            found = list(reader(requests))
            for one, other in zip(wanted, found, strict=True):
                assert torch.equal(one.images, other.images) and one.mix_seed == other.mix_seed == 7
                assert torch.equal(one.labels, other.labels)


def test_workers_read_for_one_caller_at_a_time(photos: Path) -> None:
    data = load("folder", photos, "train", 16, memory=0)
    requests = _requests(data, Augmentation())
    with Reader((data,), workers=1) as reader:
        first = reader(requests)
        next(first)
        with pytest.raises(RuntimeError, match="still reading for other requests"):
            next(reader(requests))
        assert len(list(first)) == len(requests) - 1
        assert len(list(reader(requests))) == len(requests)


def test_reading_takes_no_random_numbers_of_the_training(photos: Path) -> None:
    data = load("folder", photos, "train", 16, memory=0)
    augmentation = Augmentation(flip=True, random_resized_crop=0.2)
    for workers in (0, 1):
        torch.manual_seed(3)
        before = torch.get_rng_state()
        list(Reader((data,), augmentation, workers)(_requests(data, augmentation)))
        assert torch.equal(torch.get_rng_state(), before)


def _config(photos: Path, **tables: Any) -> Any:
    return make_config({
        "method": "float",
        "student": {"network": "densenet-tiny", "options": {"dropout": 0.2}},
        "data": {"kind": "folder", "path": str(photos), "size": 12, **tables.get("data", {})},
        "augmentation": {"flip": True, "shift": 1, **tables.get("augmentation", {})},
        "training": {"epochs": 2, "batch_size": 8, **tables.get("training", {})},
    })  # fmt: skip


def _weights(run: Path) -> dict[str, Any]:
    return checkpoint.load(run / STUDENT)[0]["student"]


def test_a_streamed_run_ends_with_the_weights_of_one_in_memory(
    photos: Path, tmp_path: Path
) -> None:
    results = [
        train(_config(photos, data=data), tmp_path / str(number))
        for number, data in enumerate(
            ({}, {"in_memory_mib": 0, "workers": 0}, {"in_memory_mib": 0, "workers": 2})
        )
    ]
    first = _weights(tmp_path / "0")
    for number in (1, 2):
        other = _weights(tmp_path / str(number))
        assert all(torch.equal(first[name], other[name]) for name in first)
    assert len({result.accuracy for result in results}) == 1
    assert results[0].results == results[2].results


# -- broken images ------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 2])
def test_a_broken_picture_is_left_out_and_named_once(
    photos: Path, workers: int, caplog: pytest.LogCaptureFixture
) -> None:
    data = load("folder", photos, "train", 8, memory=0)
    bad = data.files[3]
    bad.write_bytes(b"<html>")
    augmentation = Augmentation(flip=True, shift=1)
    request = Request(
        0, torch.tensor([5, 3, 9]), augmentation.draw(3, torch.Generator().manual_seed(0))
    )
    whole = load("folder", photos, "train", 8)  # leaves it out as well
    caplog.clear()
    with Reader((data,), augmentation, workers) as reader:
        for _ in range(2):
            (batch,) = reader([request])
            assert batch.labels.tolist() == data.labels[[5, 9]].tolist()
            assert request.drawn is not None
            drawn = {name: values[[0, 2]] for name, values in request.drawn.items()}
            assert torch.equal(batch.images, augmentation.apply(whole.pixels([4, 8]), drawn))
    line = f"left out 1 broken image: {bad}: not an image OpenCV can read"
    assert caplog.messages == [line]
    with pytest.raises(DataError, match="not an image OpenCV can read"):
        data.pixels([3])


@pytest.mark.parametrize("workers", [0, 1])
def test_a_batch_of_broken_pictures_ends_the_run(photos: Path, workers: int) -> None:
    data = load("folder", photos, "train", 8, memory=0)
    for path in data.files[:2]:
        path.write_bytes(b"")
    with (
        Reader((data,), workers=workers) as reader,
        pytest.raises(DataError, match=r"00.png: file is empty; no image of this batch") as caught,
    ):
        list(reader([Request(0, torch.tensor([0, 1]))]))
    assert "\n" not in str(caught.value) and "(2 tried)" in str(caught.value)


def test_pictures_of_other_sizes_ask_for_size(photos: Path) -> None:
    data = load("folder", photos, "train", memory=0)
    assert data.form.crop == "none"
    with pytest.raises(DataError, match=r"the first picture is .*give size"):
        list(Reader((data,))([Request(0, torch.arange(4))]))


def test_a_broken_picture_does_not_hinder_calibration(photos: Path) -> None:
    data = load("folder", photos, "train", 8, memory=0)
    data.files[4].write_bytes(b"")
    rows = [row for row in range(len(data)) if row != 4]
    assert torch.equal(readable_inputs(data), data.inputs(torch.tensor(rows)))


def test_an_evaluation_counts_readable_images(photos: Path) -> None:
    data = load("folder", photos, "test", 8, memory=0)
    data.files[0].write_bytes(b"")
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 2))
    found = evaluate(network, data)
    assert len(found) == len(data) - 1 and torch.equal(found.labels, data.labels[1:])


@pytest.mark.slow
def test_a_worker_that_is_killed_is_one_line(photos: Path, tmp_path: Path, repo_root: Path) -> None:
    config = tmp_path / "run.toml"
    config.write_text(
        f'method = "float"\n[data]\nkind = "folder"\npath = "{photos}"\nsize = 12\n'
        'in_memory_mib = 0\nworkers = 2\n[student]\nnetwork = "densenet-tiny"\n'
        "[training]\nepochs = 5000\nbatch_size = 8\n"
    )
    command = [sys.executable, "-m", "tutelage", "train", str(config), "--output"]
    process = subprocess.Popen(
        [*command, str(tmp_path / "run")], cwd=repo_root, stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    while process.poll() is None and not (tmp_path / "run" / CHECKPOINT).exists():
        time.sleep(0.05)
    psutil.Process(process.pid).children()[-1].kill()
    error = process.communicate(timeout=60)[1]
    assert (process.returncode, error.count("\n")) == (2, 1), error
    assert "one of 2 processes that read images died" in error and "[data] workers" in error


def test_a_worker_may_close_its_sockets_before_it_is_dead(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Receiver:
        """A reader of worker processes that fails as the socket of a dying process does."""

        def __iter__(self) -> Any:
            worker.kill()
            raise ConnectionResetError("Connection reset by peer")
            yield

    data = load("folder", photos, "train", 8, memory=0)
    with Reader((data,), workers=2) as reader:
        list(reader([Request(0, torch.arange(2))]))
        worker, loader = psutil.Process().children()[-1], reader._loader
        monkeypatch.setattr(reader, "_loader", Receiver())
        with pytest.raises(DataError, match="one of 2 processes that read images died"):
            list(reader([Request(0, torch.arange(2))]))
        del loader  # which ends the processes


# -- order and workers -------------------------------------------------------------------------


def test_few_shards_at_a_time_are_mixed() -> None:
    shards = np.repeat(np.arange(5 * SHARDS_AT_ONCE), 10)
    order = torch.cat(batches(len(shards), 8, 1, 0, shards)).numpy()
    assert sorted(order) == list(range(len(shards)))
    size = 10 * SHARDS_AT_ONCE
    groups = [set(shards[order[start : start + size]]) for start in range(0, len(order), size)]
    assert [len(group) for group in groups] == [SHARDS_AT_ONCE] * 5
    assert set.union(*groups) == set(range(5 * SHARDS_AT_ONCE))
    assert any(np.diff(shards[order[:size]]) < 0)  # mixed
    other = torch.cat(batches(len(shards), 8, 1, 1, shards)).numpy()
    assert not np.array_equal(order, other)


def test_how_many_workers(photos: Path) -> None:
    kept, streamed = (load("folder", photos, "test", 8, memory=memory) for memory in (1 << 20, 0))
    cpus = len(os.sched_getaffinity(0))
    assert worker_count(-1, (kept,), 1) == 0
    assert worker_count(-1, (kept, streamed), 1) == min(8, cpus)
    assert worker_count(-1, (streamed,), 2 * cpus) == 1
    assert worker_count(3, (kept,), 1) == 3
