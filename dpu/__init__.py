"""The DPU in software: .xmodel files, exact arithmetic, emulated vart and xir."""

import tutelage.core  # noqa: F401  (sets OpenCV's limits, before anything imports it)
