"""Teach neural networks to live in 8 bits, and run them on a ZCU104's DPU or its exact emulation.

The packages `core`, `dpu`, `board`, `app` and `host` are imported as `tutelage.<package>`. In a
checkout they are links in this folder, in a wheel ordinary folders. A release on a board has no
links: there the packages are found beside this folder.
"""

from pathlib import Path

__version__ = "0.2.0"

_HERE = Path(__file__).resolve().parent
if not (_HERE / "core").is_dir():
    __path__.append(str(_HERE.parent))
