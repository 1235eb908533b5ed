"""The application in front of the camera; the same on the board and on a PC."""

import os

# OpenCV reads these when it is first imported. Its C++ side would otherwise print warnings
# between the application's own lines; what fails is reported by the application itself.
os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")

# A picture of a few megabytes may stand for gigabytes of pixels, which OpenCV allows. 64 megapixels
# are 200 MB.
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(1 << 26))
