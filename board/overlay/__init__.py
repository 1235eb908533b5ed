"""The DPU's overlay on the board: loading it, and checking the requirements of a job.

Never run on a board: the tests use a stand-in for pynq in a tree of files. `load` follows
`DpuOverlay` of pynq-dpu 2.5.1 (dpu.py), except that it never rewrites /etc/vart.conf unasked.
"""
