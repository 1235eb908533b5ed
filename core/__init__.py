"""What all packages share: number rules, images, models, board profiles, results, errors, files.

It needs the standard library, numpy and OpenCV only, and goes to the board as a whole.
"""

import os

# ONNX Runtime reads this when it is imported (its Privacy.md; seen with 1.32 on Linux).
# Without it, it keeps a number for this machine in the user's home and tells Microsoft of each
# session, and a child by fork hangs at its end.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

# OpenCV reads these when it is first imported; each package of this project imports this one first.
# Its C++ side would otherwise print warnings between a program's own lines, which reports itself
# what fails.
os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")

MAX_PIXELS = 1 << 26
"""Of a picture: 67.1 megapixels, 201 MB once decoded. A file of a few megabytes may claim gigabytes
of pixels, which OpenCV allows."""

os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(MAX_PIXELS))
