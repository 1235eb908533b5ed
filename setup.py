"""The packages of the distribution, all other metadata of which is in pyproject.toml."""

from pathlib import Path

from setuptools import find_packages, setup

# tutelage/ has symbolic links to the packages, which find_packages follows.
if not (Path(__file__).resolve().parent / "tutelage" / "core").is_dir():
    raise SystemExit(
        "tutelage/core is not a link to core/: this copy has lost its symbolic links. It runs "
        "(python3 app/classify.py) but cannot be installed; clone the repository with git, on "
        "Windows after: git config --global core.symlinks true"
    )
setup(packages=find_packages(include=["tutelage", "tutelage.*"]))
