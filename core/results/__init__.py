"""Results that the application, the prediction, the comparison and the report share.

figure.py       a number with its interval: the one form, in memory and in JSON
intervals.py    the methods that intervals come from, side by side, with their sources
percentiles.py  the one definition of a percentile
run_json.py     run.json of a measurement
bench_json.py   bench.json of a comparison
typed_json.py   JSON of untrusted files as dataclasses
"""
