"""Import every public module of a package, so that its plugins register themselves.

A plugin (a frame source, an output, a power sensor) is one file in its package's folder; it is
not listed anywhere else.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path


def import_modules(package: str) -> None:
    """Import the modules of a package, in the order of their names.

    Skipped are modules whose name begins with an underscore, and subpackages: they are imported
    where they are used.

    Parameters
    ----------
    package : full name, such as "tutelage.app.sources"
    """
    for folder in import_module(package).__path__:
        for path in sorted(Path(folder).glob("*.py")):
            if not path.name.startswith("_"):
                import_module(f"{package}.{path.stem}")
