"""Writes a student's ONNX file again in eight bits: a quarter of the size, and faster on most processors."""

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from client.data.images import Pixels
from client.errors import ClientError, unwritable
from client.learning.student_metadata import StudentMetadata
from client.paths import whole_file
from client.results.onnx_classifier import INPUT, SCORES, require_onnx

if TYPE_CHECKING:
    from onnx import ModelProto

# What scales to length 1 or to a sum of 1.
_NOT_IN_EIGHT_BITS = frozenset({"Div", "ReduceL2", "Softmax"})


def write_int8(source: Path, out: Path, pictures: Iterable[Pixels]) -> None:
    """Quantise a file that `export_onnx` wrote, with ranges of activations that these pictures give.

    Weights are quantised a channel each, to seven bits of the eight: processors without VNNI add products of
    two bytes in sixteen bits, which whole bytes would overflow. What makes probabilities of features stays as
    it is: it takes no time, and eight bits cannot tell a probability of 0.1% from none.

    Args:
        source: the student in float32.
        out: replaced whole, or not at all.
        pictures: batches of RGB (n, side, side, 3), of images like those that the student will see.

    Raises:
        UsageError: onnx or onnxruntime is not installed.
        ClientError: the file cannot be quantised or written.
    """
    require_onnx()
    import onnx

    try:
        with whole_file(out) as part:
            _quantise(source, part, pictures)
            quantised = onnx.load(part)
            del quantised.metadata_props[:]
            texts = {each.key: each.value for each in onnx.load(source).metadata_props}
            for key, value in {**texts, **StudentMetadata(dtype="int8").to_file()}.items():
                quantised.metadata_props.add(key=key, value=value)
            onnx.save(quantised, part)
    except OSError as error:
        raise unwritable(out, error) from error
    except Exception as error:  # a quantiser raises anything about a layer that it does not know
        raise ClientError(
            f"{out} was not written: onnxruntime cannot quantise this student ({type(error).__name__})."
        ) from error


def _quantise(source: Path, out: Path, pictures: Iterable[Pixels]) -> None:
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Pictures(CalibrationDataReader):  # type: ignore[misc]  # the package has no types
        def __init__(self) -> None:
            self._batches: Iterator[Pixels] = iter(pictures)

        def get_next(self) -> dict[str, Any] | None:
            batch = next(self._batches, None)
            return None if batch is None else {INPUT: batch}

    with TemporaryDirectory() as folder, _quiet():
        prepared = Path(folder, "prepared.onnx")
        quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
        quantize_static(
            str(prepared),
            str(out),
            Pictures(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            reduce_range=True,
            nodes_to_exclude=_head(onnx.load(prepared)),
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )


def _head(model: "ModelProto") -> list[str]:
    """The names of the nodes that compare features with classes, and of all that scale to a length or sum."""
    scoring = [node.name for node in model.graph.node if SCORES in node.output]
    return scoring + [node.name for node in model.graph.node if node.op_type in _NOT_IN_EIGHT_BITS]


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the quantiser's advice to its own developers off the screen."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
