"""Measure the energy of a classification: python examples/measure_power.py [--frames 1000]

On a ZCU104 this reads the 12V rail, on a PC the processor's counters, if they are readable.
"""

import argparse

import numpy as np

import tutelage

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--frames", type=int, default=1000)
options = parser.parse_args()

net = tutelage.load()
image = np.zeros(net.input.dims[1:], np.int8)
net.run(image)  # not measured, since the first run builds the engine

with tutelage.Power() as power:
    for _ in range(options.frames):
        net.run(image)

print(f"{options.frames / power.seconds:,.0f} frames per second")
if power.joules is None:
    print(power.reason)
else:
    per_frame = 1e3 * power.joules / options.frames
    print(f"{per_frame:.3f} mJ per frame, {power.watts:.2f} W ({power.reason})")
    for name, rail in power.block().items():
        print(f"  {name}: {rail.mean_w} W, {rail.joules} J")
