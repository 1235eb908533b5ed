"""Memory and speed of a training run with very many images.

    python -m tests.benchmarks.streaming --images 200000 --kind folder --folder /tmp/many

It writes JPEG pictures as a folder or as WebDataset shards if `--folder` does not have them yet,
trains a small network for an epoch with `tutelage train`, and prints as JSON the peak memory of
all processes together: the sum of their resident sets (RSS), in which shared pages
count in each, and of their proportional ones (PSS), in which they count once. `growth_mib` is
the growth of PSS from the first to the last fifth of the samples in the epoch.
"""

from __future__ import annotations

import argparse
import io
import json
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import psutil

CLASSES, PICTURES, SIDE = 100, 500, 64
OF_SHARD = 5000
MIB = 1 << 20
EVERY = 0.5  # seconds between samples
EVALUATED = 0.05  # share of test images


def _pictures() -> list[bytes]:
    """JPEG files of blurred noise, whose brightness encodes the class."""
    rng = np.random.default_rng(0)
    found = []
    for number in range(PICTURES):
        shape = SIDE + number % 16, SIDE + number % 11, 3
        noise = cv2.blur(rng.integers(0, 256, shape, np.uint8), (5, 5))
        brightness = np.uint8(number % CLASSES)
        found.append(cv2.imencode(".jpg", cv2.add(noise, np.full(shape, brightness)))[1].tobytes())
    return found


def _names(images: int) -> Iterator[tuple[str, int, int]]:
    """Yield the split, class and number of each image."""
    every = round(1 / EVALUATED)
    for number in range(images):
        place = number // CLASSES
        yield ("test" if place % every == every - 1 else "train"), number % CLASSES, number


def write_folder(folder: Path, images: int) -> None:
    """Write SPLIT/CLASS/NUMBER.jpg."""
    pictures = _pictures()
    for split, label, number in _names(images):
        path = folder / split / f"class{label:03}" / f"picture_{number:08}.jpg"
        if number < CLASSES * round(1 / EVALUATED):
            path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(pictures[number % PICTURES])


def write_shards(folder: Path, images: int) -> None:
    """Write SPLIT/NUMBER.tar."""
    pictures, counts = _pictures(), {"train": 0, "test": 0}
    archives: dict[str, tarfile.TarFile] = {}
    for split, label, number in _names(images):
        if counts[split] % OF_SHARD == 0:
            (folder / split).mkdir(parents=True, exist_ok=True)
            if split in archives:
                archives[split].close()
            path = folder / split / f"{counts[split] // OF_SHARD:06}.tar"
            archives[split] = tarfile.open(path, "w")  # noqa: SIM115
        counts[split] += 1
        for suffix, content in (("jpg", pictures[number % PICTURES]), ("cls", b"%d" % label)):
            member = tarfile.TarInfo(f"{number:08}.{suffix}")
            member.size = len(content)
            archives[split].addfile(member, io.BytesIO(content))
        archives[split].members.clear()  # type: ignore[attr-defined]  # else they fill the memory
    for archive in archives.values():
        archive.close()


WRITERS = {"folder": write_folder, "webdataset": write_shards}


def measure(kind: str, folder: Path, output: Path, workers: int, batch: int) -> dict[str, Any]:
    """Train for an epoch and return its memory and time."""
    config = output / "run.toml"
    config.parent.mkdir(parents=True, exist_ok=True)
    config.write_text(
        f'method = "float"\n[data]\nkind = "{kind}"\npath = "{folder}"\nsize = 16\n'
        f"in_memory_mib = 0\nworkers = {workers}\n[augmentation]\nflip = true\n"
        f'[student]\nnetwork = "densenet-tiny"\n[training]\nepochs = 1\nbatch_size = {batch}\n'
    )
    command = [sys.executable, "-m", "tutelage", "train", str(config), "--output",
               str(output / "run"), "--json"]  # fmt: skip
    started = time.monotonic()
    with (output / "log").open("w") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        samples = list(_samples(process))
        assert process.stdout is not None
        printed = process.stdout.read()
    if process.returncode:
        raise SystemExit((output / "log").read_text())
    reading = [pss for _, pss, processes in samples if processes > 1]
    fifth = max(1, len(reading) // 5)
    return {
        "kind": kind,
        "seconds": round(time.monotonic() - started, 1),
        "processes": 1 + workers,
        "most_rss_mib": round(max(rss for rss, _, _ in samples) / MIB),
        "most_pss_mib": round(max(pss for _, pss, _ in samples) / MIB),
        "growth_mib": round((max(reading[-fifth:]) - max(reading[:fifth])) / MIB, 1),
        "images_tested": json.loads(printed)["images"],
    }


def _samples(process: subprocess.Popen[str]) -> Iterator[tuple[int, int, int]]:
    """Yield RSS and PSS of a process and its children together, and their number."""
    root = psutil.Process(process.pid)
    while process.poll() is None:
        with suppress(psutil.Error):
            infos = [one.memory_full_info() for one in (root, *root.children(recursive=True))]
            yield sum(info.rss for info in infos), sum(info.pss for info in infos), len(infos)
        time.sleep(EVERY)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=200_000)
    parser.add_argument("--kind", choices=sorted(WRITERS), default="folder")
    parser.add_argument("--folder", type=Path, required=True, help="of the images and the run")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--batch", type=int, default=100)
    options = parser.parse_args()
    data = options.folder / f"{options.kind}-{options.images}"
    if not data.exists():
        WRITERS[options.kind](data, options.images)
    output = options.folder / f"run-{time.time_ns()}"
    figures = measure(options.kind, data, output, options.workers, options.batch)
    print(json.dumps({"images": options.images, **figures}, indent=2))


if __name__ == "__main__":
    main()
