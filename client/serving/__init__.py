"""A deployed student: `client serve`, on ONNX Runtime alone."""
