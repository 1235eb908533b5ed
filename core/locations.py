"""Locations of the code and of results, in a checkout, a release on a board or a wheel."""

from __future__ import annotations

from pathlib import Path

CODE = Path(__file__).resolve().parent.parent
"""The folder that contains app/, board/, core/, dpu/ and host/: a checkout, a release or the
installed package."""

IS_CHECKOUT = (CODE / "setup.py").is_file()
"""Whether the code runs from a checkout, whose folders are writable."""

IMPORT_PATH = CODE if (CODE / "tutelage" / "__init__.py").is_file() else CODE.parent
"""The folder that Python's path needs for `import tutelage`."""

DEMO_MODEL = CODE / "app" / "demo"
"""Directory of the default model, which also has example pictures in images/."""

RESULTS = CODE / "results" if IS_CHECKOUT else Path("results")
"""Folder of results: the checkout's, else `results` in the working directory."""
