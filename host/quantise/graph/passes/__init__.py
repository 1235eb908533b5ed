"""The passes, one a file; `normalise.py` beside this folder has their order."""
