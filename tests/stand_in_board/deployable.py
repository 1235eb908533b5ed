"""Files that tests deploy to a stand-in board: a model that tests/fake_board runs, and wheels."""

from __future__ import annotations

import base64
import hashlib
import zipfile
from importlib import metadata
from pathlib import Path

import cv2
import numpy as np

CLASSES = 10


def make_model(folder: Path) -> Path:
    """Write a model directory that tests/fake_board runs, with images of three classes."""
    (folder / "images").mkdir(parents=True)
    (folder / "model.xmodel").write_bytes(b"\x0a\x04fake")
    (folder / "model.toml").write_text(
        '[input]\nwidth = 8\nheight = 8\ncolour = "rgb"\n[output]\n'
        f"labels = {[f'class {k}' for k in range(CLASSES)]}\n"
    )
    for k in range(3):
        cv2.imwrite(str(folder / "images" / f"{k}.png"), np.full((8, 8, 3), 20 * k + 30, np.uint8))
    return folder


def make_wheel(name: str, folder: Path) -> None:
    """Pack an installed package into its wheel again."""
    package = metadata.distribution(name)
    tags = [line[5:].split("-") for line in (package.read_text("WHEEL") or "").splitlines()
            if line.startswith("Tag: ")]  # fmt: skip
    tag = "-".join(".".join(dict.fromkeys(parts)) for parts in zip(*tags, strict=True))
    tag = tag.replace("-linux_", "-manylinux2014_")  # built here, for a stand-in here
    stem = name.replace("-", "_")
    record: list[str] = []
    with zipfile.ZipFile(folder / f"{stem}-{package.version}-{tag}.whl", "w") as wheel:
        for file in package.files or ():
            unpacked = file.parts[0] == ".." or file.suffix == ".pyc"
            if unpacked or file.name in ("RECORD", "INSTALLER"):
                continue
            content = Path(str(file.locate())).read_bytes()
            digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=")
            record.append(f"{file},sha256={digest.decode()},{len(content)}\n")
            wheel.writestr(str(file), content)
        info = next(str(f.parent) for f in package.files or () if f.name == "WHEEL")
        wheel.writestr(f"{info}/RECORD", "".join(record) + f"{info}/RECORD,,\n")
