"""Predict a network's latency on a board: python examples/predict_latency.py [net.xmodel]"""

import argparse

import tutelage
from tutelage.core.locations import DEMO_MODEL

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("network", nargs="?", default=DEMO_MODEL / "model.xmodel", help=".xmodel")
parser.add_argument("--board", default="zcu104")
options = parser.parse_args()

found = tutelage.predict(options.network, board=options.board)
least, most = found.latency_range()
print(f"{1e3 * found.latency_seconds:.2f} ms ({1e3 * least:.2f} to {1e3 * most:.2f}) per image,")
print(f"{found.fps():,.0f} frames per second with enough threads; the slowest layers:")
for layer in sorted(found.layers(), key=lambda layer: -layer.seconds)[:5]:
    print(f"  {1e6 * layer.seconds:7.1f} us, {layer.bound:10}  {layer.stage.name}")
