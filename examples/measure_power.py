"""Measure the energy of a classification: python examples/measure_power.py [--frames 1000]

On a ZCU104 the 12V rail is read, on a PC the processor's counters, where they may be read.
"""

import argparse

import numpy as np

import tutelage

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--frames", type=int, default=1000)
options = parser.parse_args()

net = tutelage.load()
image = np.zeros(net.input.dims[1:], np.int8)
net.run(image)  # what the first run builds does not count

with tutelage.Power() as power:
    for _ in range(options.frames):
        net.run(image)

print(f"{options.frames / power.seconds:,.0f} frames per second")
if power.joules is None:
    print(power.reason)
else:
    per_frame = 1e3 * power.joules / options.frames
    print(f"{per_frame:.3f} mJ a frame, {power.watts:.2f} W ({power.reason})")
    for name, rail in power.block().items():
        print(f"  {name}: {rail.mean_w} W, {rail.joules} J")
