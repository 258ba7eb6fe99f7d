"""Image encoders of open_clip as backbones: a CoCa's embeds patches too, and a student takes the image."""

import copy
import json
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from safetensors.torch import save_file

from client.errors import UsageError
from client.learning.backbones import load_backbone, local_files
from client.learning.backbones.open_clip_backbones import class_texts
from client.learning.student import build_student
from client.learning.student_file import load_student, save_student


def _tiny_coca(folder: Path) -> Any:
    """open_clip's CoCa with towers of one layer, in a folder; returned as open_clip makes it."""
    config: dict[str, Any] = copy.deepcopy(open_clip.get_model_config("coca_ViT-B-32"))
    assert config["vision_cfg"]["output_tokens"]
    config["embed_dim"] = 24
    config["vision_cfg"] |= {"layers": 1, "width": 64, "image_size": 32, "attn_pooler_heads": 2}
    config["text_cfg"] |= {"layers": 1, "width": 16, "heads": 2}
    config["multimodal_cfg"] |= {"layers": 1, "width": 16, "heads": 2, "attn_pooler_heads": 2}
    preprocessing = {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic"}
    described = {"model_cfg": config, "preprocess_cfg": preprocessing}
    (folder / "open_clip_config.json").write_text(json.dumps(described))
    torch.manual_seed(0)
    model = open_clip.CoCa(**{key: value for key, value in config.items() if key != "custom_text"})
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    return model.eval()


def test_a_coca_gives_one_embedding_an_image_and_survives_its_file(tmp_path: Path) -> None:
    coca, name = _tiny_coca(tmp_path), f"open_clip:{tmp_path}"
    read = [tmp_path / file for file in ("open_clip_config.json", "open_clip_model.safetensors")]
    assert local_files(name, None) == tuple(read)
    backbone = load_backbone(name).eval()
    pixels = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        theirs = coca.encode_image(pixels, normalize=False)
        torch.testing.assert_close(backbone(pixels), theirs)
        student = build_student(backbone, outputs=4, text_head=None, image_size=32).eval()
        save_student(student, name, tmp_path / "student.safetensors", {})
        loaded, _ = load_student(tmp_path / "student.safetensors")
        torch.testing.assert_close(loaded.backbone(pixels), theirs)
    assert class_texts(name, ["a photo of a cat", "a photo of a dog"]).shape == (2, 24)


def test_weights_that_are_known_by_a_name_are_in_no_file_here() -> None:
    assert local_files("open_clip:RN50/openai", None) == local_files("tf_efficientnet_lite0", None) == ()


@pytest.mark.parametrize(
    "part",
    [
        {"vision_cfg": {"timm_model_name": "hf-hub:somebody/model"}},
        {"text_cfg": {"hf_model_name": "somebody/model"}},
        {"text_cfg": {"hf_tokenizer_name": "somebody/model"}},
    ],
)
def test_a_folder_has_nothing_fetched_from_a_hub(tmp_path: Path, part: dict[str, Any]) -> None:
    config = {"embed_dim": 8, "vision_cfg": {"image_size": 32}, "text_cfg": {}} | part
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": config}))
    with pytest.raises(UsageError, match="hub"):
        load_backbone(f"open_clip:{tmp_path}")
