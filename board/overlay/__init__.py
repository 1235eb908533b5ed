"""The DPU's overlay on the board: check it, load it, and look at what must be right before a job.

Never run on a board: the tests call a stand-in of pynq in a tree of files. What `load` does is
what `DpuOverlay` of pynq-dpu 2.5.1 (dpu.py) does; it differs in that it never rewrites
/etc/vart.conf unasked.
"""
