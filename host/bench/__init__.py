"""Comparison of one student on the CPU, on the GPU and on the DPU: `tutelage bench`."""
