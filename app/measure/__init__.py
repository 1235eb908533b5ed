"""Measures a model on the machine that it runs on: `python -m tutelage.app.measure`.

    plan.py          what is measured: load patterns x threads, and how long
    recorder.py      the time of every frame
    facts.py         what the measurement is made with
    step_figures.py  the figures of one step, from frames and watts
    warnings.py      what speaks against a window
    summary.py       the table for a reader
    store.py         files that survive a crash
    measurement.py   the whole measurement, from the idle baseline to the end

The results themselves and their intervals: core/results. `tutelage measure` starts this on a board
over SSH, and collects what it stores.
"""
