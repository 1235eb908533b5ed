"""Measures a model on the machine that it runs on: `python -m tutelage.app.measure`.

    plan.py       what is measured: scenarios x threads, and how long
    recorder.py   the time of every frame
    sections.py   confidence intervals
    facts.py      what the figures are taken with
    doubts.py     what speaks against a window
    figures.py    the figures of one step, from frames and watts
    summary.py    the table for a reader
    store.py      files that survive a crash
    run.py        the whole measurement, from the idle baseline to the end

`tutelage measure` starts this on a board over SSH, and collects what it stores.
"""
