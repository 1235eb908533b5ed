"""Shared by all packages: number rules, images, models, board profiles, results, errors, files.

Needs only the standard library, numpy and OpenCV, and is copied to the board as a whole.
"""

import os

# ONNX Runtime reads this on import (documented in its Privacy.md; observed with 1.32 on Linux).
# Without it, ONNX Runtime stores a machine identifier in the user's home and reports every session
# to Microsoft, and a forked child hangs on exit.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

# OpenCV reads these when it is first imported; every package of this project imports this one
# first. Otherwise OpenCV's C++ code prints warnings between the lines of a program that already
# reports failures itself.
os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")

MAX_PIXELS = 1 << 26
"""Largest number of pixels of a picture: 67.1 megapixels, 201 MB once decoded. A file of a few
megabytes may claim gigapixels, which OpenCV accepts by default."""

os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(MAX_PIXELS))
