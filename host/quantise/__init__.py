"""Power-of-two quantisation of a network under the DPU's rules: trace, calibrate, train, lower."""
