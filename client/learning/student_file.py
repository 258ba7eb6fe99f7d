"""A student's file: its tensors, and all that it takes to build it again."""

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from client.errors import ClientError
from client.learning.backbones import architecture_of, empty_backbone
from client.learning.backbones.timm_backbones import width_of
from client.learning.student import Preprocessing, StudentNetwork, build_student
from client.learning.student_metadata import StudentMetadata
from client.learning.tensor_file import load_metadata, load_tensors, save_tensors


def load_student_metadata(path: Path) -> StudentMetadata:
    """The metadata of a student's file; next to none of another safetensors file.

    Raises:
        ClientError: it is missing or damaged.
    """
    return StudentMetadata.from_file(load_metadata(path))


def save_student(student: StudentNetwork, name: str, path: Path, metadata: dict[str, str]) -> None:
    """Write the student with everything that `load_student` needs: `name` is its backbone's."""
    seen = student.preprocessing
    shape = {
        "student": name,
        "image_size": str(seen.image_size),
        "mean": json.dumps(seen.mean),
        "std": json.dumps(seen.std),
    }
    architecture = architecture_of(student.backbone)
    if architecture is not None:
        shape["architecture"] = architecture
    save_tensors(student.state_dict(), path, metadata | shape)


def load_student(path: Path) -> tuple[StudentNetwork, dict[str, str]]:
    """The student that `save_student` wrote, ready to predict, and its metadata.

    It takes no more memory than the file's tensors, whatever architecture the file names: what that would be
    is compared with them first.

    Raises:
        ClientError: the file is missing or is not a student.
    """
    tensors, metadata = load_tensors(path)
    try:
        with torch.device("meta"):  # shapes alone
            outline = _built(tensors, metadata).state_dict()
        if _shapes(outline) != _shapes(tensors):
            raise ValueError("its tensors are not those of its architecture")
        student = _built(tensors, metadata)
        student.load_state_dict(tensors)
    except (KeyError, ValueError, TypeError, RuntimeError) as error:
        raise ClientError(f"{path} is not a student that `client distill` wrote.") from error
    return student.eval(), metadata


def _built(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> StudentNetwork:
    """A student of the shape that a file describes, freshly initialised.

    Raises:
        UsageError, KeyError, ValueError, TypeError, RuntimeError: it describes none.
    """
    side = StudentMetadata.from_file(metadata).image_size
    if side is None:
        raise KeyError("image_size")
    seen = Preprocessing(side, tuple(json.loads(metadata["mean"])), tuple(json.loads(metadata["std"])))
    backbone = empty_backbone(metadata["student"], image_size=side, architecture=metadata.get("architecture"))
    classifier = tensors.get("projector.classifier.weight")
    projector = tensors.get("projector.weight" if classifier is None else "projector.space.weight")
    return build_student(
        backbone,
        outputs=width_of(backbone) if projector is None else len(projector),
        text_head=tensors.get("text_head", classifier),
        preprocessing=seen,
        own_projector=projector is None,
        trains_texts=classifier is not None,
    )


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in tensors.items()}
