"""multilingual-e5-small, rebuilt as ONNX from the weights that a pip package carries."""
