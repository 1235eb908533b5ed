"""Prediction of a network's time and energy on a board's DPU."""
