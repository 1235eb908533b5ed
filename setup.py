"""Packages of Tutelage; everything else about the distribution is in pyproject.toml."""

from setuptools import find_packages, setup

# tutelage/ has links to the packages, which find_packages follows.
setup(packages=find_packages(include=["tutelage", "tutelage.*"]))
