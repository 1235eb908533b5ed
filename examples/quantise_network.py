"""Quantise, export and run your own PyTorch network: python examples/quantise_network.py

The weights are random here; the outputs of the float network and of the DPU are compared.
"""

import argparse

import torch
from torch import nn

import tutelage
from tutelage.core.locations import DEMO_MODEL

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--images", default=DEMO_MODEL / "images", help="directory")
parser.add_argument("--output", default="models/quantised")
options = parser.parse_args()

torch.manual_seed(0)
network = nn.Sequential(
    nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
    nn.Conv2d(16, 32, 3, 2, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU(),
    nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10),
).eval()  # fmt: skip

quantised = tutelage.quantise(network, options.images, (3, 28, 28), mean=[0.5], std=[0.5])
tutelage.export(quantised, options.output, labels=[f"class {number}" for number in range(10)])

images = torch.rand(8, 3, 28, 28) * 2 - 1
with torch.no_grad():
    wanted = quantised(images)
    error = (network(images) - wanted).abs().max()
print(f"largest difference of a logit from the float network: {error:.4f}")

net = tutelage.load(options.output)  # compiled for the ZCU104; runs on the emulation here
outputs = torch.from_numpy(net.run(images.permute(0, 2, 3, 1).numpy()))
print("the exported file computes the same:", torch.equal(outputs, wanted))
