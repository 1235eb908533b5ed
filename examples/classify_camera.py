"""Classify the frames of a camera: python examples/classify_camera.py /dev/video0 seen.mp4

The source may also be a video, a directory of images, or an rtsp:// or http:// URL; the output may
also be a directory, seen.csv or seen.jsonl. Stop it with Ctrl-C.
"""

import argparse

import tutelage

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("source", nargs="?", default="/dev/video0")
parser.add_argument("output", nargs="?", default="seen.mp4")
parser.add_argument("--frames", type=int, help="stop after this many frames")
options = parser.parse_args()

net = tutelage.load()  # on a board the deployed model, else the demo; or load("models/mine")
with (
    tutelage.open(options.source) as source,
    tutelage.output(options.output, source.fps) as output,
):
    try:
        for count, frame in enumerate(source, start=1):
            result = net.classify(frame)
            output.add(result)
            print(frame.name, result.label or result.error)
            if count == options.frames:
                break
    except KeyboardInterrupt:
        print("stopped")
