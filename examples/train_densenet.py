"""Train an 8-bit DenseNet with a larger one as teacher: python examples/train_densenet.py photos/

`photos/` has a folder of images for each class. `tutelage export` exports the resulting run.
"""

import argparse

import tutelage
from tutelage.core.locations import DEMO_MODEL

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("photos", nargs="?", default=str(DEMO_MODEL / "images"))
parser.add_argument("--output", default="runs")
parser.add_argument("--epochs", type=int, default=20, help="at least 3")
options = parser.parse_args()

common = {
    "data": {"kind": "folder", "path": options.photos, "size": 32},
    "augmentation": {"flip": True, "shift": 2},
    "training": {"epochs": options.epochs, "batch_size": 32},
}
student, teacher = f"{options.output}/student", f"{options.output}/teacher"
for folder, network in ((student, "densenet-small"), (teacher, "densenet-wide")):
    run = tutelage.train({**common, "method": "float", "student": {"network": network}}, folder)
    print(f"{folder}: {run.accuracy:.1f} % in float")

qkd = {
    **common,
    "method": "qkd",
    "student": {"network": "densenet-small", "weights": f"{student}/student.safetensors"},
    "teacher": {"network": "densenet-wide", "weights": f"{teacher}/student.safetensors"},
}
run = tutelage.train(qkd, f"{options.output}/qkd")
print(f"{options.output}/qkd: {run.accuracy:.1f} % at 8 bits; next: tutelage export")
