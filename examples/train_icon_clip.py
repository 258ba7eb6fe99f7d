"""Train icon-clip, the small CLIP that the vendor hosts by default, from icons (90 minutes on two cores).

    python -m examples.train_icon_clip --out icon_clip

What it learns from is in icon_corpus.py, and none of it is in icons.zip, on which it is examined in the end:
by "a photo of a {class}", once. Of those images, what resembles one is left out of training, and
icon_kinds.toml was extended by what a former model got wrong on them. The same seed on the same machine gives
the same weights, also after an interruption (`--checkpoint`).
"""

import argparse
import copy
import json
import math
import time
import zipfile
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import open_clip
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from client.data.bundled_set import ICONS
from client.data.wording import class_prompts
from client.learning.backbones import DEFAULT_BACKBONE, load_backbone
from examples.build_icons import SIDE, fetch
from examples.icon_corpus import Corpus, build_corpus, read_sets, words_of_no_thing
from examples.icon_kinds import Kinds
from examples.icon_styles import Drawings, restyle

SIZE = 64
CONTEXT = 16  # tokens of a text
CONFIG: dict[str, Any] = {
    "embed_dim": 256,
    "vision_cfg": {
        "timm_model_name": "efficientnet_lite0",  # with weights of `DEFAULT_BACKBONE`, which pads otherwise
        "timm_model_pretrained": False,
        "timm_pool": "avg",
        "timm_proj": "linear",
        "timm_drop": 0.0,
        "image_size": SIZE,
    },
    "text_cfg": {"context_length": CONTEXT, "vocab_size": 49408, "width": 160, "heads": 2, "layers": 3},
}
_CHECKPOINT_EVERY = 200
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# The first stages of the image tower keep what they know of ImageNet; only their statistics are of icons.
FROZEN_STAGES = 2
# What has an everyday word is 63% of what is drawn, though 9% of the icons.
KIND_WEIGHT = 110
STYLE_WORDS = {
    "line": ("line", "outline"),
    "solid": ("solid", "filled", "glyph"),
    "colour": ("colour", "color"),
    "flat": ("flat", "colour"),
    "pencil": ("pencil", "hand drawn"),
    "icon": ("simple",),
}


@dataclass(frozen=True)
class Schedule:
    """How long and how fast; the rate is warmed up over 80 steps and falls to a fiftieth as a cosine does."""

    steps: int = 4400
    batch: int = 256
    image_rate: float = 1e-3
    other_rate: float = 1.5e-3
    average: float = 0.995

    def share(self, step: int) -> float:
        """Of the full rate, at a step that is counted from 1."""
        cosine = 0.5 * (1 + math.cos(math.pi * (step - 1) / self.steps))
        return min(1.0, step / 80) * (0.98 * cosine + 0.02)


def main() -> None:
    """Draw the icons, train, examine, and write the model's folder."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("icon_clip"), help="the model's folder")
    parser.add_argument("--package", type=Path, help="folder of @iconify/json; fetched with npm by default")
    parser.add_argument("--corpus", type=Path, help="keep the drawn icons in this .npz, or take them from it")
    parser.add_argument(
        "--checkpoint",
        type=Path,
        help=f"keep the state here every {_CHECKPOINT_EVERY} steps, or go on from it",
    )
    parser.add_argument("--steps", type=int, default=Schedule.steps)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    corpus = _corpus(arguments.corpus, arguments.package)
    print(f"{len(corpus.captions)} icons, {len(set(corpus.captions))} different names", flush=True)
    schedule = Schedule(steps=arguments.steps)
    model = train(corpus, schedule, seed=arguments.seed, checkpoint=arguments.checkpoint)
    write(model, arguments.out)
    print(json.dumps(examine(arguments.out), indent=2))


def _corpus(kept: Path | None, package: Path | None) -> Corpus:
    if kept is not None and kept.exists():
        return Corpus.load(kept)
    with TemporaryDirectory() as scratch:
        corpus = build_corpus(package or fetch(Path(scratch)), read_sets(), ICONS)
    if kept is not None:
        corpus.save(kept)
    return corpus


# -- what is learnt


@dataclass(frozen=True)
class Lesson:
    """A batch of pictures with their captions.

    Attributes:
        pictures: shape (n, 3, SIZE, SIZE), normalised.
        tokens: of the captions, shape (n, CONTEXT).
        names: a number for what a caption calls the thing, shape (n,).
        kinds: a number for what it is in everyday words, shape (n,).
    """

    pictures: Tensor
    tokens: Tensor
    names: Tensor
    kinds: Tensor


class Lessons:
    """Batches of pictures and captions; half of the captions call a thing by an everyday word."""

    def __init__(self, corpus: Corpus, schedule: Schedule, seed: int) -> None:
        """Take up the icons; batch n is the same whenever it is asked for."""
        self._corpus = corpus
        self._batch = schedule.batch
        self._seed = seed
        self._kinds = kinds_of(corpus)
        self._weights = concept_weights(corpus, self._kinds)
        self._tokenize = open_clip.SimpleTokenizer(context_length=CONTEXT)
        names = sorted({*corpus.captions, *(kind for kind in self._kinds if kind)})
        self._numbers = {name: number for number, name in enumerate(names)}

    def __call__(self, step: int) -> Lesson:
        """The batch of a step."""
        chance = torch.Generator().manual_seed(self._seed * 1_000_003 + step)
        chosen = torch.multinomial(self._weights, self._batch, replacement=True, generator=chance)
        pictures = normalised(restyle(self._drawings(chosen), SIZE, chance))
        icons = chosen.tolist()
        kinds = [self._kinds[icon] or self._corpus.captions[icon] for icon in icons]
        everyday = torch.rand(len(icons), generator=chance) < 0.5
        names = [
            kind if plain else self._corpus.captions[icon]
            for icon, kind, plain in zip(icons, kinds, everyday.tolist(), strict=True)
        ]
        captions = [
            self._caption(name, self._corpus.styles[icon], chance)
            for name, icon in zip(names, icons, strict=True)
        ]
        return Lesson(pictures, self._tokenize(captions), self._number(names), self._number(kinds))

    def _number(self, names: Sequence[str]) -> Tensor:
        return torch.tensor([self._numbers[name] for name in names])

    def _drawings(self, chosen: Tensor) -> Drawings:
        corpus, count = self._corpus, len(chosen)
        plain = chosen < len(corpus.ink)
        ink, colours = torch.zeros(count, 1, SIDE, SIDE), torch.zeros(count, 3, SIDE, SIDE)
        regions = torch.zeros(count, SIDE, SIDE, dtype=torch.uint8)
        ink[plain, 0] = torch.from_numpy(corpus.ink[chosen[plain]]) / 255
        regions[plain] = torch.from_numpy(corpus.regions[chosen[plain]])
        rgba = torch.from_numpy(corpus.colours[chosen[~plain] - len(corpus.ink)]).permute(0, 3, 1, 2) / 255
        ink[~plain], colours[~plain] = rgba[:, 3:], rgba[:, :3]
        return Drawings(ink, colours, regions, plain)

    def _caption(self, thing: str, style: str, chance: torch.Generator) -> str:
        turn, other = torch.rand(2, generator=chance).tolist()
        if turn < 0.45:
            return f"a photo of {with_article(thing)}"
        if turn < 0.65:
            return thing
        if turn < 0.80:
            return f"an icon of {with_article(thing)}"
        if turn < 0.86:
            return f"a picture of {with_article(thing)}"
        words = STYLE_WORDS.get(style, (style,))
        drawn = with_article(words[int(other * len(words))])
        if style == "emoji":
            return f"{drawn} of {with_article(thing)}"
        return f"{drawn} {'icon' if other < 0.5 else 'drawing'} of {with_article(thing)}"


def with_article(words: str) -> str:
    """The words with "a" or "an" before them."""
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def kinds_of(corpus: Corpus) -> list[str | None]:
    """What each icon shows in everyday words, where its name says so."""
    kinds = Kinds.read()
    return [kinds.of(caption, style) for caption, style in zip(corpus.captions, corpus.styles, strict=True)]


def concept_weights(corpus: Corpus, kinds: Sequence[str | None]) -> Tensor:
    """How often each icon is drawn, shape (icons,): rare things as often as common ones.

    As MetaCLIP curates (Xu et al., ICLR 2024): an icon counts by the everyday word for it, much, or by the
    rarest concept of its name. Concepts are the words of emoji's names; icons of interface gestures have none
    and are hardly drawn.
    """
    emoji = {
        word
        for caption, style in zip(corpus.captions, corpus.styles, strict=True)
        if style == "emoji"
        for word in caption.split()
    }
    concepts = {word for word in emoji - words_of_no_thing() if len(word) > 2 and not word.isdigit()}
    count = Counter(word for caption in corpus.captions for word in set(caption.split()) & concepts)
    of_kind, names = Counter(kinds), Counter(corpus.captions)
    weights = []
    for number, (caption, kind) in enumerate(zip(corpus.captions, kinds, strict=True)):
        words = caption.split()
        in_colour = 2.2 if number >= len(corpus.ink) else 1.0
        rarest = min((count[word] for word in words if word in concepts), default=0)
        if kind:
            weights.append(KIND_WEIGHT * in_colour * of_kind[kind] ** -0.5)
        elif rarest:
            weights.append(8 * in_colour * {1: 2.0, 2: 1.2, 3: 0.7}.get(len(words), 0.4) * rarest**-0.5)
        else:
            weights.append(0.08 * in_colour * names[caption] ** -0.5)
    return torch.tensor(weights, dtype=torch.double)


def normalised(pictures: Tensor) -> Tensor:
    """With ImageNet's mean and deviation."""
    mean, deviation = (torch.tensor(each).view(1, 3, 1, 1) for each in (MEAN, DEVIATION))
    return ((pictures - mean) / deviation).contiguous(memory_format=torch.channels_last)


# -- the model


def train(corpus: Corpus, schedule: Schedule, *, seed: int, checkpoint: Path | None = None) -> open_clip.CLIP:
    """The mean of a model's weights on its way through the schedule.

    Args:
        corpus: what is learnt.
        schedule: how.
        seed: of the new weights and of everything that is drawn.
        checkpoint: a file that the state is kept in meanwhile; if it exists, training goes on from there.
    """
    torch.manual_seed(seed)
    lessons = Lessons(corpus, schedule, seed)
    model = new_model()
    trained = set_up_trunk(model.visual.trunk, [lessons(-step).pictures for step in range(1, 13)])
    optimiser, rates = optimiser_of(model, trained, schedule)
    average = copy.deepcopy(model).requires_grad_(False)
    parts = {"model": model, "optimiser": optimiser, "average": average}
    first = 1 if checkpoint is None else _resumed(checkpoint, parts)
    began = time.monotonic()
    for step, lesson in _ahead(lessons, first, schedule.steps):
        for group, rate in zip(optimiser.param_groups, rates, strict=True):
            group["lr"] = rate * schedule.share(step)
        loss = contrastive_loss(model, lesson)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        _average(average, model, min(schedule.average, (1 + step) / (10 + step)))
        if checkpoint is not None and step % _CHECKPOINT_EVERY == 0:
            _keep(checkpoint, step, parts)
        if step % 50 == 0 or step == first + 4:
            seconds = (time.monotonic() - began) / (step - first + 1)
            left = seconds * (schedule.steps - step) / 60
            print(f"step {step}: loss {loss.item():.3f}, {seconds:.2f} s a step, {left:.0f} min", flush=True)
    return average


def _resumed(checkpoint: Path, parts: dict[str, Any]) -> int:
    """The step to go on with, once the parts are as they were kept; 1 where nothing was."""
    if not checkpoint.exists():
        return 1
    kept = torch.load(checkpoint, weights_only=True)
    for name, part in parts.items():
        part.load_state_dict(kept[name])
    return int(kept["step"]) + 1


def _keep(checkpoint: Path, step: int, parts: dict[str, Any]) -> None:
    """Write the parts as they are after this step, whole or not at all."""
    draft = checkpoint.with_suffix(".part")
    torch.save({"step": step} | {name: part.state_dict() for name, part in parts.items()}, draft)
    draft.replace(checkpoint)


def new_model() -> open_clip.CLIP:
    """The model with ImageNet's weights in its image tower and random ones elsewhere."""
    model = open_clip.CLIP(**copy.deepcopy(CONFIG))
    model.visual.trunk.load_state_dict(load_backbone(DEFAULT_BACKBONE).state_dict())
    model.visual.to(memory_format=torch.channels_last)
    return model


def set_up_trunk(trunk: timm.models.EfficientNet, batches: Sequence[Tensor]) -> list[nn.Module]:
    """Freeze the first stages, once their statistics are those of icons; returns what is trained."""
    frozen = first_stages(trunk)
    with torch.no_grad():
        trunk.train()
        for pictures in batches:
            nn.Sequential(*frozen)(pictures)
    for module in frozen:
        module.requires_grad_(False)
    return [*trunk.blocks[FROZEN_STAGES:], trunk.conv_head, trunk.bn2]


def first_stages(trunk: timm.models.EfficientNet) -> list[nn.Module]:
    """The modules that stay frozen, in order."""
    return [trunk.conv_stem, trunk.bn1, *trunk.blocks[:FROZEN_STAGES]]


def optimiser_of(
    model: open_clip.CLIP, trained: Sequence[nn.Module], schedule: Schedule
) -> tuple[torch.optim.Optimizer, list[float]]:
    """AdamW, and the full rate of each of its groups: the image tower, other matrices, other vectors."""
    tower = [parameter for module in trained for parameter in module.parameters()]
    seen = {id(parameter) for parameter in model.visual.trunk.parameters()}
    other = [parameter for parameter in model.parameters() if id(parameter) not in seen]
    groups = [
        {"params": tower, "lr": schedule.image_rate, "weight_decay": 0.02},
        {"params": [p for p in other if p.ndim > 1], "lr": schedule.other_rate, "weight_decay": 0.05},
        {"params": [p for p in other if p.ndim <= 1], "lr": schedule.other_rate, "weight_decay": 0.0},
    ]
    rates = [schedule.image_rate, schedule.other_rate, schedule.other_rate]
    return torch.optim.AdamW(groups, betas=(0.9, 0.98)), rates


def contrastive_loss(model: open_clip.CLIP, lesson: Lesson) -> Tensor:
    """CLIP's loss, where all pictures and texts of one name belong together.

    A picture is not held against another name for the same kind of thing: a sailboat is a ship.
    """
    same = _equal(lesson.names)
    other_name = _equal(lesson.kinds) & ~same
    logits = similarities(model, lesson)
    logits = logits.masked_fill(other_name, torch.finfo(logits.dtype).min)
    share = same / same.sum(dim=1, keepdim=True)
    by_image: Tensor = (share * logits.log_softmax(dim=1)).sum(dim=1).mean()
    by_text: Tensor = (share * logits.T.log_softmax(dim=1)).sum(dim=1).mean()
    return -(by_image + by_text) / 2


def similarities(model: open_clip.CLIP, lesson: Lesson) -> Tensor:
    """The scaled cosine of each picture to each text, shape (n, n), as the model is trained."""
    model.train()
    for module in first_stages(model.visual.trunk):
        module.eval()
    images = functional.normalize(model.encode_image(lesson.pictures), dim=1)
    with torch.autocast("cpu", torch.bfloat16):
        texts = model.encode_text(lesson.tokens)
    scale: Tensor = model.logit_scale.exp().clamp(max=100)
    return scale * images @ functional.normalize(texts.float(), dim=1).T


def _equal(numbers: Tensor) -> Tensor:
    return numbers[:, None] == numbers[None]


@torch.no_grad()
def _average(average: nn.Module, model: nn.Module, keep: float) -> None:
    for mean, now in zip(average.state_dict().values(), model.state_dict().values(), strict=True):
        if mean.is_floating_point():
            mean.lerp_(now, 1 - keep)
        else:
            mean.copy_(now)


def _ahead(lessons: Lessons, first: int, last: int) -> Iterator[tuple[int, Lesson]]:
    """Each step from the first to the last, and its batch; the next is prepared meanwhile."""
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(lessons, first)
        for step, following in pairwise(range(first, last + 2)):
            batch = coming.result()
            if following <= last:
                coming = pool.submit(lessons, following)
            yield step, batch


# -- what comes out


def write(model: open_clip.CLIP, folder: Path) -> None:
    """An open_clip folder: configuration, and weights in float16."""
    folder.mkdir(parents=True, exist_ok=True)
    preprocessing = {"mean": MEAN, "std": DEVIATION, "interpolation": "bicubic", "resize_mode": "squash"}
    config = {"model_cfg": CONFIG, "preprocess_cfg": preprocessing}
    (folder / "open_clip_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    weights = {
        name: (tensor.half() if tensor.is_floating_point() else tensor).contiguous()
        for name, tensor in model.state_dict().items()
        if name != "attn_mask"
    }
    save_file(weights, folder / "open_clip_model.safetensors")


def examine(folder: Path) -> dict[str, float]:
    """Zero-shot accuracy in per cent on each domain of icons.zip, and on all, by "a photo of a {class}"."""
    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    tokenize = open_clip.get_tokenizer(f"local-dir:{folder}")
    model.eval()
    right: dict[str, list[bool]] = defaultdict(list)
    with zipfile.ZipFile(ICONS) as archive, torch.inference_mode():
        files = [name for name in archive.namelist() if name.endswith(".png")]
        classes = sorted({name.split("/")[2] for name in files})
        texts = functional.normalize(model.encode_text(tokenize(class_prompts(classes))), dim=1)
        for start in range(0, len(files), 128):
            some = files[start : start + 128]
            pictures = [preprocess(Image.open(archive.open(name))) for name in some]
            guesses = (model.encode_image(torch.stack(pictures)) @ texts.T).argmax(dim=1)
            for name, guess in zip(some, guesses.tolist(), strict=True):
                _, domain, label, _ = name.split("/")
                right[domain].append(classes[guess] == label)
                right["all"].append(classes[guess] == label)
    return {domain: round(100 * sum(each) / len(each), 1) for domain, each in right.items()}


if __name__ == "__main__":
    main()
