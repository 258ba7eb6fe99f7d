"""What the tests of others' code share: short runs."""

from tests.support.brief import briefly, onnx

__all__ = ["briefly", "onnx"]
