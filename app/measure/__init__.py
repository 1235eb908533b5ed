"""Measurement of a model on the machine that it runs on: `python -m tutelage.app.measure`.

    plan.py          the steps (load patterns x threads) and their durations
    recorder.py      the times of every frame
    facts.py         machine, versions, model and DPU of a measurement
    step_figures.py  the figures of one step, from frames and watts
    warnings.py      doubts about a window's figures
    summary.py       the results as a Markdown table
    store.py         files that survive a crash
    measurement.py   the whole measurement, from the idle baseline to the end

The types of the results and their intervals are in core/results. `tutelage measure` starts this
program on a board over SSH, and collects the files that it writes.
"""
