"""Power-of-two quantisation by the DPU's rules: trace, calibrate, train, lower."""
