"""What a run works with: the images of the source domains, and the queries that they take."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from client.buying.budget import Plan
from client.buying.queries import Query
from client.buying.teacher import Outlook, Teacher
from client.data.domains import Example, ImageFolder, Skipped, class_prompts, list_folder, relative, split
from client.display import Display
from client.errors import DataError
from client.run_folder import RunConfig
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

    @property
    def prompts(self) -> list[Query]:
        """One query a class."""
        return [Query.text(prompt) for prompt in class_prompts(self.folder.classes)]

    @property
    def images(self) -> list[Query]:
        """One query a training image: its file's bytes, untouched. Hold-outs need none."""
        return [Query.image_file(e.path, e.digest) for e in (self.examples[i] for i in self.train)]

    @property
    def strata(self) -> list[tuple[str, str]]:
        """The domain and class name of each of `images`."""
        return [(e.domain, self.folder.classes[e.label]) for e in (self.examples[i] for i in self.train)]


def read_sources(config: RunConfig, display: Display) -> Sources:
    """Read every domain but the target, of which only file names are seen.

    Raises:
        DataError: the folder, its domains or its classes are not what a run needs.
    """
    folder = list_folder(Path(config.data))
    domains = folder.source_domains(config.target_domain)
    with display.track("Reading images", sum(map(folder.count, domains))) as advance:
        examples, skipped = folder.read(domains, lambda done: advance(done, ""))
    skipped = [s for s in folder.ignored if s.path.parts[-3] != config.target_domain] + skipped
    if not examples:
        raise DataError(f"None of the images in {folder.root} can be read; the first: {skipped[0].reason}.")
    train, holdout = split(examples, holdout=config.recipe.holdout, seed=config.seed)
    return Sources(folder, config.target_domain, domains, examples, skipped, train, holdout)


def plan_of(config: RunConfig, sources: Sources, teacher: Teacher) -> Plan:
    """What the run would buy."""
    return teacher.plan(
        sources.prompts, sources.images, sources.strata, seed=config.seed, select=config.select
    )


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
    return {"quote": quote, "seconds": outlook.seconds}
