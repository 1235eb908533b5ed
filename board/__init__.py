"""The board's hardware behind small interfaces; nothing here imports app or host."""

import tutelage.core  # noqa: F401  (sets OpenCV's limits before anything imports OpenCV)
