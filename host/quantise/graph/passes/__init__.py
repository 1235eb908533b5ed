"""The passes, one in each file; `host/quantise/graph/normalise.py` has their order."""
