"""How good a copy of icon-clip is, by how many images were asked about and how much of its space they cover.

    make bench-extraction

Attackers of three kinds ask the bundled model about images, and each trains surrogates of four kinds on the
answers alone. `random` draws from all images at hand. `targeted` has the images of ten classes and views of
them. `adaptive` asks about what its last surrogate holds to be farthest from all that it has asked about. The
images at hand are the bundled pool without labels and a part of the labelled icons; what is left of these
(1,000) is only looked at in the end: the mean cosine between surrogate and model, and how often both give an
image the same one of the 54 classes, by "a photo of a {class}" with the model's own text tower. It writes the
curve that `vendor extraction report` reads, and prints the tables of docs/trust.md.
"""

import argparse
import io
import json
import tomllib
import zipfile
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from statistics import fmean

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.records import ROOT
from benchmarks.runs import unpacked
from client.data.bundled_set import ICONS, UNLABELLED
from client.data.listing import list_folder
from client.data.splits import split
from client.data.wording import class_prompts
from client.learning.backbones import DEFAULT_BACKBONE, load_backbone
from vendor_service.encoder.clip import ClipModel
from vendor_service.encoder.sources import find_model
from vendor_service.extraction.curve import FILE, Point
from vendor_service.extraction.recorder import buckets_of

ATTACKERS = ("random", "targeted", "adaptive")
BUDGETS = (50, 150, 500, 1500, 5000)
# To train all of a backbone takes minutes, so one attacker does it, for a few budgets.
FINE_TUNED = {"random": (500, 1500, 5000)}
TASK = 10  # classes of the targeted attacker
HELD_OUT = 1000
VIEWS = 20  # of each image of the targeted attacker
BATCH = 64
RIDGE = 0.1
FEATURES, DIMENSIONS = 1280, 256  # of the backbone and of the model


@dataclass(frozen=True)
class Images:
    """Images as the model sees them, uint8 of shape (images, 3, side, side), with what it says of each.

    `names` are paths in their archives, `features` what a frozen backbone of the attacker's makes of them.
    """

    names: list[str]
    pixels: Tensor
    embeddings: Tensor
    features: Tensor

    def chosen(self, places: Sequence[int]) -> "Images":
        """Some of them."""
        names = [self.names[each] for each in places]
        return Images(names, self.pixels[places], self.embeddings[places], self.features[places])

    def and_also(self, others: "Images") -> "Images":
        """These and others."""
        return Images(
            self.names + others.names,
            torch.cat([self.pixels, others.pixels]),
            torch.cat([self.embeddings, others.embeddings]),
            torch.cat([self.features, others.features]),
        )


class Teacher:
    """The bundled model, asked without a vendor around it, and the backbone that attackers have anyway."""

    def __init__(self) -> None:
        self._model = ClipModel(find_model("icon-clip", None), [torch.device("cpu")], "float32")
        self.fingerprint = self._model.fingerprint
        self._backbone = load_backbone(DEFAULT_BACKBONE).eval()
        self.backbone_parameters = parameters_of(self._backbone)

    def asked(self, names: list[str], pixels: Tensor) -> Images:
        """The images with their embeddings."""
        embeddings = torch.from_numpy(self._model.encode_images(list(pixels.permute(0, 2, 3, 1))))
        with torch.inference_mode():
            features = torch.cat([self._backbone(_scaled(each)) for each in torch.split(pixels, 128)])
        return Images(names, pixels, embeddings, features)

    def read(self, archive: Path) -> Images:
        """All images of an archive."""
        with zipfile.ZipFile(archive) as files:
            names = [each for each in files.namelist() if each.endswith((".png", ".webp"))]
            pixels = [self._seen(files.read(each)) for each in names]
        return self.asked(names, torch.stack(pixels))

    def texts(self, classes: Sequence[str]) -> Tensor:
        """The embeddings of the prompts of classes."""
        return torch.from_numpy(self._model.encode_texts(class_prompts(classes)))

    def buckets(self, embeddings: Tensor) -> set[int]:
        """The buckets that they lie in."""
        return set(buckets_of(embeddings.numpy(), self.fingerprint))

    def _seen(self, file: bytes) -> Tensor:
        pixels: Tensor = self._model.preprocessing.resize(Image.open(io.BytesIO(file)).convert("RGB"))
        return pixels.permute(2, 0, 1)


# What trains on images and their embeddings, and then embeds images.
Surrogate = Callable[[Images], Tensor]
Train = Callable[[Images], Surrogate]


@dataclass(frozen=True)
class Kind:
    """A kind of surrogate, and for which budgets it is trained."""

    parameters: int
    train: Train
    budgets: tuple[int, ...] = BUDGETS


def main() -> None:
    """Attack, write the curve, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=FILE, help="the curve")
    parser.add_argument(
        "--surrogates",
        nargs="*",
        choices=("small", "medium", "frozen", "fine-tuned"),
        default=["small", "medium", "frozen", "fine-tuned"],
        help="train these, and keep what the curve has of others; none: only what `client distill` covers",
    )
    parser.add_argument(
        "--attackers", nargs="+", choices=ATTACKERS, default=ATTACKERS, help="the same of these"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    teacher = Teacher()
    pool, icons = teacher.read(UNLABELLED), teacher.read(ICONS)
    if arguments.surrogates:
        before = json.loads(arguments.out.read_text())["points"] if arguments.out.exists() else []
        wanted = [(who, what) for who in arguments.attackers for what in arguments.surrogates]
        points = [Point(**each) for each in before if (each["attacker"], each["surrogate"]) not in wanted]
        points += attacks(teacher, pool, icons, wanted, arguments.seed)
        about = {"model": "icon-clip", "model_fingerprint": teacher.fingerprint, "seed": arguments.seed}
        lines = ",\n  ".join(json.dumps(asdict(each)) for each in points)
        arguments.out.write_text(f'{json.dumps(about)[:-1]}, "points": [\n  {lines}\n]}}\n')
    if arguments.out.exists():
        best([Point(**each) for each in json.loads(arguments.out.read_text())["points"]])
    honest(teacher, pool, icons)


def best(points: Sequence[Point]) -> None:
    """Print the table of docs/trust.md: of each attacker and larger budget, the best surrogate."""
    print("\n| attacker | distinct queries | buckets | best copy | cosine | agreement | on ten classes |")
    print("|---|---|---|---|---|---|---|")
    for attacker in ATTACKERS:
        for budget in BUDGETS[2:]:
            found = [each for each in points if (each.attacker, each.queries) == (attacker, budget)]
            for each in sorted(found, key=lambda point: point.agreement)[-1:]:
                asked = f"{attacker} | {each.queries:,} | {each.buckets:,} | {each.surrogate}"
                print(f"| {asked} | {each.cosine:.2f} | {each.agreement:.0%} | {each.task_agreement:.0%} |")


def attacks(
    teacher: Teacher, pool: Images, icons: Images, wanted: Collection[tuple[str, str]], seed: int
) -> Iterator[Point]:
    """What each wanted pair of attacker and surrogate comes to, printed as it goes."""
    order = np.random.default_rng(seed).permutation(len(icons.names)).tolist()
    held_out, known = icons.chosen(order[:HELD_OUT]), icons.chosen(order[HELD_OUT:])
    classes = sorted({class_of(each) for each in icons.names})
    task = classes[:: len(classes) // TASK][:TASK]
    examined = Examination(
        held_out, teacher.texts(classes), [class_of(each) in task for each in held_out.names]
    )
    at_hand = pool.and_also(known)
    print("| attacker | surrogate | parameters | queries | buckets | cosine | agreement | on the task |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    for attacker in ATTACKERS:
        kinds = {
            name: kind for name, kind in surrogates(teacher, attacker).items() if (attacker, name) in wanted
        }
        images = at_hand
        if attacker == "targeted" and kinds:
            mine = [place for place, name in enumerate(known.names) if class_of(name) in task]
            images = views(teacher, known.chosen(mine), seed)
        for name, kind in kinds.items():
            for asked, surrogate in attack(kind, images, seed, adaptive=attacker == "adaptive"):
                cosine, agreement, on_task = examined.of(surrogate)
                point = Point(
                    attacker=attacker,
                    surrogate=name,
                    parameters=kind.parameters,
                    queries=len(asked.names),
                    buckets=len(teacher.buckets(asked.embeddings)),
                    cosine=round(cosine, 3),
                    agreement=round(agreement, 3),
                    task_agreement=round(on_task, 3),
                )
                print(f"| {' | '.join(str(each) for each in asdict(point).values())} |", flush=True)
                yield point


def attack(kind: Kind, images: Images, seed: int, *, adaptive: bool) -> Iterator[tuple[Images, Surrogate]]:
    """What was asked, and the surrogate that learnt from it, by growing budgets."""
    chosen: list[int] = []
    surrogate: Surrogate | None = None
    for budget in kind.budgets:
        torch.manual_seed(seed)
        if adaptive and surrogate is not None:
            chosen = farthest(surrogate(images), chosen, budget)
        else:
            chosen = np.random.default_rng(seed).permutation(len(images.names))[:budget].tolist()
        asked = images.chosen(chosen)
        surrogate = kind.train(asked)
        yield asked, surrogate


@dataclass(frozen=True)
class Examination:
    """The icons that no attacker has seen, the prompts of all classes, and which icons are of the task."""

    images: Images
    texts: Tensor
    of_task: list[bool]

    def of(self, surrogate: Surrogate) -> tuple[float, float, float]:
        """Mean cosine, and agreement on all icons and on those of the task, of a surrogate with the model."""
        found, right = surrogate(self.images), self.images.embeddings
        same = (found @ self.texts.T).argmax(1) == (right @ self.texts.T).argmax(1)
        cosine = (found * right).sum(1).mean()
        return (
            float(cosine),
            float(same.float().mean()),
            float(same[torch.tensor(self.of_task)].float().mean()),
        )


def surrogates(teacher: Teacher, attacker: str) -> dict[str, Kind]:
    """Those that an attacker trains, by name.

    Two convolutional networks learn from nothing. Two are efficientnet_lite0 as ImageNet left it: `frozen`
    below a linear head by ridge regression, and `fine-tuned` as a whole.
    """
    large = teacher.backbone_parameters + (FEATURES + 1) * DIMENSIONS
    kinds = {
        "small": Kind(parameters_of(network(8)), lambda asked: trained(network(8), asked)),
        "medium": Kind(parameters_of(network(16)), lambda asked: trained(network(16), asked)),
        "frozen": Kind(large, ridge),
    }
    if attacker in FINE_TUNED:
        kinds["fine-tuned"] = Kind(large, fine_tuned, FINE_TUNED[attacker])
    return kinds


def network(width: int) -> nn.Module:
    """Four convolutions, each of which halves the side and doubles the channels, and a linear layer."""
    channels = (3, width, 2 * width, 4 * width, 8 * width)
    layers: list[nn.Module] = []
    for before, after in pairwise(channels):
        layers += [nn.Conv2d(before, after, 3, 2, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels[-1], DIMENSIONS)]
    return nn.Sequential(*layers).to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def parameters_of(module: nn.Module) -> int:
    """How many numbers it has."""
    return sum(each.numel() for each in module.parameters())


def fine_tuned(asked: Images) -> Surrogate:
    """The whole backbone, trained further, under a new head."""
    backbone = load_backbone(DEFAULT_BACKBONE)
    head = nn.Linear(FEATURES, DIMENSIONS)
    model = nn.Sequential(backbone, head).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return trained(model, asked, steps=200, rate=1e-3)


def trained(model: nn.Module, asked: Images, steps: int | None = None, rate: float = 3e-3) -> Surrogate:
    """Train for the cosine, with mirrored and shifted images."""
    few = 300 if len(asked.names) <= 150 else 600
    steps = steps or (few if len(asked.names) <= 500 else 1000)
    optimizer = torch.optim.AdamW(model.parameters(), rate, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, steps)
    model.train()
    for _ in range(steps):
        places = torch.randint(len(asked.names), (BATCH,))
        images = _scaled(asked.pixels[places])
        if torch.rand(()) < 0.5:
            images = images.flip(3)
        shift = torch.randint(-4, 5, (2,)).tolist()
        out = functional.normalize(model(images.roll(shift, (2, 3))), dim=1)
        loss = 1 - (out * asked.embeddings[places]).sum(1).mean()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
    model.eval()

    def embed(images: Images) -> Tensor:
        with torch.inference_mode():
            found = torch.cat([model(_scaled(each)) for each in torch.split(images.pixels, 256)])
            return functional.normalize(found, dim=1)

    return embed


def ridge(asked: Images) -> Surrogate:
    """A linear map of frozen features, by ridge regression in its dual form."""
    mean, deviation = asked.features.mean(0), asked.features.std(0) + 1e-3

    def standard(images: Images) -> Tensor:
        scaled = (images.features - mean) / deviation / images.features.shape[1] ** 0.5
        return functional.pad(scaled, (0, 1), value=1.0)

    inputs = standard(asked)
    kernel = inputs @ inputs.T + RIDGE * torch.eye(len(inputs))
    weights = inputs.T @ torch.linalg.solve(kernel, asked.embeddings)
    return lambda images: functional.normalize(standard(images) @ weights, dim=1)


def farthest(believed: Tensor, chosen: list[int], budget: int) -> list[int]:
    """So many images: those chosen before, and one by one the farthest from all of them, as is believed."""
    chosen = list(chosen)
    nearest = torch.full((len(believed),), -1.0)
    for start in range(0, len(chosen), 256):
        nearest = torch.maximum(nearest, (believed @ believed[chosen[start : start + 256]].T).amax(1))
    nearest[chosen] = 2.0
    while len(chosen) < budget:
        place = int(nearest.argmin())
        chosen.append(place)
        nearest = torch.maximum(nearest, believed @ believed[place])
        nearest[place] = 2.0
    return chosen


def views(teacher: Teacher, images: Images, seed: int) -> Images:
    """The images and views of them: cut out, and mirrored or not."""
    generator = np.random.default_rng(seed)
    pixels, names = [*images.pixels], list(images.names)
    side = images.pixels.shape[-1]
    for _ in range(VIEWS - 1):
        for name, image in zip(images.names, images.pixels, strict=True):
            size = int(side * generator.uniform(0.6, 0.95))
            top, left = generator.integers(0, side - size, 2)
            cut = image[:, top : top + size, left : left + size].float()[None]
            seen = functional.interpolate(cut, (side, side), mode="bilinear").round().to(torch.uint8)[0]
            pixels.append(seen.flip(2) if generator.random() < 0.5 else seen)
            names.append(name)
    return teacher.asked(names, torch.stack(pixels))


def honest(teacher: Teacher, pool: Images, icons: Images) -> None:
    """What `client distill` asks about, and covers, where a style is held out: the mean over the styles."""
    excluded = tomllib.loads((ROOT / "examples" / "unlabelled.toml").read_text())["exclude"]
    classes = teacher.texts(sorted({class_of(each) for each in icons.names}))
    rows: dict[str, list[tuple[int, int]]] = {"labelled images": [], "and the pool without labels": []}
    for target in excluded:
        taught = _taught(target)
        labelled = [place for place, name in enumerate(icons.names) if name in taught]
        others = [
            place for place, name in enumerate(pool.names) if name.split("/")[1] not in excluded[target]
        ]
        asked = torch.cat([classes, icons.embeddings[labelled]])
        for row, embeddings in zip(rows, (asked, torch.cat([asked, pool.embeddings[others]])), strict=True):
            rows[row].append((len(embeddings), len(teacher.buckets(embeddings))))
    print("\n| client distill with | queries | buckets |\n|---|---|---|")
    for row, found in rows.items():
        queries, buckets = (round(fmean(each)) for each in zip(*found, strict=True))
        print(f"| {row} | {queries} | {buckets} |")


def _taught(target: str) -> set[str]:
    """The labelled icons that a run trains on where a style is held out: it asks about no hold-outs."""
    folder = unpacked(ICONS)
    images = list_folder(folder)
    examples, _ = images.read(images.source_domains(target))
    train, _ = split(examples, holdout=0.2, seed=0)
    return {str(examples[each].path.relative_to(folder.parent)) for each in train}


def class_of(name: str) -> str:
    """The class of a labelled icon."""
    return name.split("/")[2]


def _scaled(pixels: Tensor) -> Tensor:
    """From -1 to 1, as the weights of the default student's backbone take them."""
    return (pixels.float() / 127.5 - 1).contiguous(memory_format=torch.channels_last)


if __name__ == "__main__":
    main()
