"""The camera application, the same on the board and on a PC."""

import tutelage.core  # noqa: F401  (sets OpenCV's limits before anything imports OpenCV)
