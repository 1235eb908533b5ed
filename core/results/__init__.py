"""Results that the application, the prediction, the comparison and the report share.

figure.py      a number with its interval: the one form, in memory and in JSON
statistics.py  percentiles, and the methods that intervals come from, with their sources
run_json.py    run.json of a measurement
bench_json.py  bench.json of a comparison
typed_json.py  JSON of untrusted files as dataclasses
"""
