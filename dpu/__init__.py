"""The accelerator in pure software: .xmodel files, exact arithmetic, emulated vart and xir."""

import os

# OpenCV reads these when it is first imported; app/ and host/ import this package before.
# Its C++ side would otherwise print warnings between a program's own lines, which tells itself of
# what fails.
os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")

# A picture of a few megabytes may stand for gigabytes of pixels, which OpenCV allows. 64 megapixels
# are 200 MB.
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(1 << 26))
