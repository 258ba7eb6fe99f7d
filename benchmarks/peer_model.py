"""Writes a CLIP ViT-B-32 with random weights as transformers saves one; run by infinity-emb's own Python."""

import sys
from pathlib import Path

import torch
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor

from tests.infinity.tiny_clip import byte_tokenizer

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    folder.mkdir()
    torch.manual_seed(0)
    CLIPModel(CLIPConfig()).save_pretrained(folder)  # whose defaults are those of ViT-B-32
    CLIPProcessor(CLIPImageProcessor(), byte_tokenizer(folder)).save_pretrained(folder)
