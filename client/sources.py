"""What a run works with: the images of the source domains, and the queries that they take."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from client.buying.budget import Plan, purchase_order
from client.buying.queries import Query
from client.buying.teacher import Outlook, Teacher
from client.data.domains import Example, ImageFolder, Skipped, class_prompts, list_folder, relative, split
from client.data.manifests import recognise
from client.display import Display
from client.errors import DataError
from client.learning.methods import METHODS
from client.run_folder import RunConfig
from client.shared_work import SharedWork
from shared.embeddings import ModelCard


@dataclass(frozen=True)
class Sources:
    """The images of the source domains: read, hashed, and split into training images and hold-outs."""

    folder: ImageFolder
    target: str
    domains: tuple[str, ...]
    examples: list[Example]
    skipped: list[Skipped]
    train: list[int]
    holdout: list[int]

    @property
    def labels(self) -> list[int]:
        """The class of each of `examples`, as a position among the folder's classes."""
        return [example.label for example in self.examples]


@dataclass(frozen=True)
class Questions:
    """What a run asks the teacher.

    Attributes:
        prompts: one query a class.
        images: one query a training image: its file's bytes, untouched. Hold-outs need none.
        positions: which of `Sources.examples` each of `images` is.
        strata: the domain and class name of each of `images`.
    """

    prompts: list[Query]
    images: list[Query]
    positions: list[int]
    strata: list[tuple[str, str]]


def questions(config: RunConfig, sources: Sources) -> Questions:
    """What the run's method asks about, up to the first `use_at_most` queries in the order of purchase."""
    asks = METHODS[config.method.split("+")[0]].asks
    classes = sources.folder.classes
    prompts = [Query.text(prompt) for prompt in class_prompts(classes)] if "texts" in asks else []
    positions = sources.train if "images" in asks else []
    examples = [sources.examples[position] for position in positions]
    images = [Query.image_file(example.path, example.digest) for example in examples]
    strata = [(example.domain, classes[example.label]) for example in examples]
    if config.use_at_most is None:
        return Questions(prompts, images, positions, strata)
    order = purchase_order(prompts, [images], strata, seed=config.seed, select=config.select)
    chosen = set(order[: config.use_at_most])
    kept = [row for row, query in enumerate(images) if query in chosen]
    return Questions(
        prompts,
        [images[row] for row in kept],
        [positions[row] for row in kept],
        [strata[row] for row in kept],
    )


def read_sources(config: RunConfig, display: Display, shared: SharedWork | None = None) -> Sources:
    """Read every domain but the target, of which only file names are seen.

    With `shared`, a domain that was read for another run is not read again. Where the folder seems to be
    a known data set and differs from it, a note says so.

    Raises:
        DataError: the folder, its domains or its classes are not what a run needs.
    """
    shared = shared or SharedWork()
    folder = list_folder(Path(config.data))
    shared.once("manifest", str(folder.root), lambda: _mention_differences(folder, display))
    domains = folder.source_domains(config.target_domain)
    examples: list[Example] = []
    skipped: list[Skipped] = []
    for domain in domains:
        read, unread = read_domain(folder, domain, display, shared)
        examples += read
        skipped += unread
    skipped = [s for s in folder.ignored if s.path.parts[-3] != config.target_domain] + skipped
    if not examples:
        raise DataError(f"None of the images in {folder.root} can be read; the first: {skipped[0].reason}.")
    train, holdout = split(examples, holdout=config.recipe.holdout, seed=config.seed)
    return Sources(folder, config.target_domain, domains, examples, skipped, train, holdout)


def _mention_differences(folder: ImageFolder, display: Display) -> None:
    """Say where a folder is not the data set whose name or domains it has: figures would not compare."""
    known = recognise(folder)
    differences = known.differences(folder) if known else []
    if known and differences:
        display.note(
            f"{folder.root} looks like {known.name} and is not all of it: {differences[0]} "
            f"`client data check` lists all {len(differences)} differences and what else is wrong."
        )


def read_domain(
    folder: ImageFolder, domain: str, display: Display, shared: SharedWork
) -> tuple[list[Example], list[Skipped]]:
    """The images of a domain, and the files that are none; read once for all runs that share their work."""

    def read() -> tuple[list[Example], list[Skipped]]:
        with display.track(f"Reading {domain}", folder.count(domain)) as advance:
            return folder.read([domain], lambda done: advance(done, ""))

    return shared.once("images", f"{folder.root}/{domain}", read)[0]


def plan_of(config: RunConfig, asked: Questions, teacher: Teacher) -> Plan:
    """What the run would buy."""
    return teacher.plan(asked.prompts, asked.images, asked.strata, seed=config.seed, select=config.select)


def describe_plan(
    config: RunConfig, sources: Sources, model: ModelCard | None, plan: Plan | None
) -> dict[str, Any]:
    """What a run would use and buy, as `plan.json` holds it and `client plan --json` prints it."""
    return {
        "method": config.method,
        "target_domain": sources.target,
        "source_domains": list(sources.domains),
        "classes": list(sources.folder.classes),
        "train_images": len(sources.train),
        "holdout_images": len(sources.holdout),
        "images_by_domain": dict(Counter(example.domain for example in sources.examples)),
        "skipped": [
            {"path": relative(s.path, sources.folder.root), "reason": s.reason} for s in sources.skipped
        ],
        "model": None if model is None else model.model_dump(mode="json"),
        "purchase": None if plan is None else plan.to_json(),
    }


def describe_outlook(outlook: Outlook) -> dict[str, Any]:
    """What a plan says of the vendor: its own price, what quota and money allow, and the time it takes."""
    quote = None if outlook.quote is None else outlook.quote.model_dump(mode="json")
    return {"quote": quote, "prices_known": outlook.prices_known, "seconds": outlook.seconds}


def mention(skipped: Sequence[Skipped], root: Path, display: Display) -> None:
    """Say which files are left out, the first ten by name."""
    for file in skipped[:10]:
        display.note(f"Skipped {relative(file.path, root)}: {file.reason}")
    if len(skipped) > 10:
        display.note(f"... and {len(skipped) - 10} more; plan.json lists all.")
