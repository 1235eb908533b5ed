"""Where the packages are, and where results go: in a checkout, a release on a board or a wheel."""

from __future__ import annotations

from pathlib import Path

CODE = Path(__file__).resolve().parent.parent
"""The folder of app/, board/, core/, dpu/ and host/: a checkout, a release or the installed
package."""

IMPORT_PATH = CODE if (CODE / "tutelage" / "__init__.py").is_file() else CODE.parent
"""The folder that Python's path needs for `import tutelage`."""

RESULTS = CODE / "results" if (CODE / "setup.py").is_file() else Path("results")
"""Folder of results: the checkout's, else `results` in the working directory."""
