"""Classify image files: python examples/classify_image.py cat.png dog.png [--model models/mine]"""

import argparse
from pathlib import Path

import tutelage
from tutelage.core.locations import DEMO_MODEL

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("images", nargs="*", type=Path, default=[DEMO_MODEL / "images/Bag/00018.png"])
parser.add_argument("--model", default=DEMO_MODEL, help="model directory or .xmodel")
options = parser.parse_args()

net = tutelage.load(options.model, top=3)
for image in options.images:
    result = net.classify(image)
    classes = ", ".join(f"{label} {confidence:.1%}" for label, confidence in result.top)
    print(f"{image.name}: {classes} ({result.milliseconds['infer']:.1f} ms)")
