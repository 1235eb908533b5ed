"""Results shared by the application, the prediction, the comparison and the report.

figure.py       a number with its interval, in memory and in JSON
intervals.py    the methods that compute intervals, with their sources
percentiles.py  the definition of a percentile
run_json.py     run.json of a measurement
bench_json.py   bench.json of a comparison
typed_json.py   untrusted JSON files as dataclasses
"""
