"""Export of a trained student to a model directory and to ONNX."""
