"""What a teacher is sure of in the bundled pool, and what the rule `resembling` leaves of it.

    python -m benchmarks.sure_answers --sheets FOLDER

It prints how many answers count as labels, and draws some of those that the rule keeps and some of those
that it leaves out, each with the answer, for a person to judge.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image, ImageDraw
from torch import Tensor
from torch.nn.functional import normalize

from benchmarks.runs import icons, unpacked
from client.data.bundled_set import UNLABELLED
from client.learning.open_clip_encoder import OpenClipEncoder, load
from client.learning.recipe import LOGIT_SCALE, Recipe
from client.learning.supervision import Supervision
from client.learning.teacher_weights import pseudo_labelled
from client.learning.temperature import fitted_temperature

_SHOWN, _ACROSS, _CELL = 60, 12, 100


def main() -> None:
    """Ask the bundled model, count, and draw."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--sheets", type=Path, help="write kept.png and left-out.png into this folder")
    arguments = parser.parse_args()
    labelled = sorted(icons().glob("*/*/*.png"))
    pool = sorted(unpacked(UNLABELLED).glob("*/*.webp"))
    classes = sorted({file.parent.name for file in labelled})
    encoder = load("icon-clip", device="cpu")
    texts = normalize(
        encoder.embed_texts([f"a photo of a {each.replace('_', ' ')}" for each in classes]), dim=1
    )
    images = torch.cat([_embedded(encoder, labelled), _embedded(encoder, pool)])
    labels = torch.tensor([classes.index(file.parent.name) for file in labelled] + [-1] * len(pool))
    known = Supervision(labels, texts, images, torch.ones(len(labels), dtype=torch.bool), 0.5)
    own = slice(len(labelled))
    temperature = fitted_temperature(LOGIT_SCALE * images[own] @ texts.T, labels[own])
    sure, kept = (
        pseudo_labelled(
            known, temperature=temperature, confidence=Recipe().pseudo_labels, resembling=resembling
        ).labels[len(labelled) :]
        for resembling in (False, True)
    )
    print(
        f"Of {len(pool)} images {int((sure >= 0).sum())} have a sure answer; {int((kept >= 0).sum())} stay."
    )
    if arguments.sheets:
        arguments.sheets.mkdir(parents=True, exist_ok=True)
        for name, which in {"kept": kept >= 0, "left-out": (sure >= 0) & (kept < 0)}.items():
            _draw(arguments.sheets / f"{name}.png", pool, which, [classes[answer] for answer in sure])


def _embedded(encoder: OpenClipEncoder, files: Sequence[Path]) -> Tensor:
    parts = []
    for start in range(0, len(files), 64):
        parts.append(encoder.embed_images([Image.open(f).convert("RGB") for f in files[start : start + 64]]))
    return normalize(torch.cat(parts), dim=1)


def _draw(path: Path, files: Sequence[Path], which: Tensor, answers: Sequence[str]) -> None:
    """Some of these images, drawn at random, each with its answer."""
    rows = torch.nonzero(which).flatten()
    chosen = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))[:_SHOWN]].tolist()
    sheet = Image.new("RGB", (_ACROSS * _CELL, -(-len(chosen) // _ACROSS) * (_CELL + 16)), "white")
    pen = ImageDraw.Draw(sheet)
    for place, row in enumerate(chosen):
        x, y = place % _ACROSS * _CELL, place // _ACROSS * (_CELL + 16)
        sheet.paste(Image.open(files[row]).convert("RGB").resize((_CELL, _CELL)), (x, y))
        pen.text((x, y + _CELL), answers[row], "black")
    sheet.save(path)


if __name__ == "__main__":
    main()
