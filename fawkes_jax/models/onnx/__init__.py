"""Networks that are given as graphs of ONNX operators."""
