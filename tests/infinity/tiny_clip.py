"""Writes a tiny random CLIP as transformers saves one, and what it says of an image and of a text.

Run with the Python of the infinity-emb server: tiny_clip.py FOLDER IMAGE TEXT
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor, CLIPTokenizer
from transformers.models.clip.tokenization_clip import bytes_to_unicode

_TOWER = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
_IMAGE_SIZE = 32
_DIMENSIONS = 24
_START, _END = "<|startoftext|>", "<|endoftext|>"


def main(folder: Path, image: Path, text: str) -> None:
    """Write the model into `folder`, and beside it `expected.npy`: unit vectors (2, dimensions)."""
    folder.mkdir(parents=True)
    tokenizer = byte_tokenizer(folder)
    torch.manual_seed(0)
    model = CLIPModel(_config(tokenizer)).eval()
    model.save_pretrained(folder)
    square = {"height": _IMAGE_SIZE, "width": _IMAGE_SIZE}
    images = CLIPImageProcessor(size={"shortest_edge": _IMAGE_SIZE}, crop_size=square)
    processor = CLIPProcessor(images, tokenizer)
    processor.save_pretrained(folder)
    with torch.no_grad(), Image.open(image) as picture:
        of_image = model.get_image_features(**processor(images=[picture], return_tensors="pt"))
        of_text = model.get_text_features(**processor(text=[text], return_tensors="pt"))
    vectors = torch.nn.functional.normalize(torch.cat([of_image, of_text]), dim=1)
    np.save(folder.parent / "expected.npy", vectors.numpy())


def byte_tokenizer(folder: Path) -> CLIPTokenizer:
    """A tokenizer whose words are single bytes."""
    letters = list(bytes_to_unicode().values())
    words = [*letters, *(f"{letter}</w>" for letter in letters), _START, _END]
    vocabulary, merges = folder / "vocab.json", folder / "merges.txt"
    vocabulary.write_text(json.dumps({word: number for number, word in enumerate(words)}))
    merges.write_text("#version: 0.2\n")
    return CLIPTokenizer(str(vocabulary), str(merges))


def _config(tokenizer: CLIPTokenizer) -> CLIPConfig:
    end = tokenizer.convert_tokens_to_ids(_END)
    of_words = {
        "vocab_size": len(tokenizer),
        "bos_token_id": end - 1,
        "eos_token_id": end,
        "pad_token_id": end,
    }
    return CLIPConfig(
        text_config={**_TOWER, **of_words},
        vision_config={**_TOWER, "image_size": _IMAGE_SIZE, "patch_size": 8},
        projection_dim=_DIMENSIONS,
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
