"""Notes about a data set: missing or different images, and files that are left out."""

from collections.abc import Collection, Sequence
from pathlib import Path
from statistics import median_low

from client.data.domains import ImageFolder
from client.data.examples import Example
from client.data.finder import Skipped, counted, described
from client.data.listing import LOOSE_IN_DOMAIN, LOOSE_IN_ROOT
from client.data.manifests import Manifest
from client.data.names import relative
from client.data.wording import Wording
from client.learning.recipe import PAPER, RECIPES, Recipe
from client.progress import Display
from shared.embeddings import ModelCard

# The command that lists files of the target domain which are left out.
LISTS_ALL = "`client data check --json`"


def mention_differences(known: Manifest, folder: ImageFolder, display: Display) -> None:
    """Say where a folder is not the data set whose name or domains it has: figures would not compare."""
    differences = known.differences(folder)
    if differences:
        display.note_once(
            f"{folder.root} looks like {known.name} and is not all of it: {differences[0]} "
            f"`client data check` lists all {len(differences)} differences and what else is wrong."
        )


def mention_recipe(known: Manifest, folder: ImageFolder, recipe: Recipe, display: Display) -> None:
    """Say where the paper has another recipe for a data set than the one that is taken."""
    if known.recipe != "paper" and recipe.is_protocol_of(PAPER):
        steps = RECIPES[known.recipe].steps
        display.note_once(
            f"{folder.root} looks like {known.name}, for which the paper takes {steps:,} steps a stage and "
            f"not {recipe.steps:,}: take --recipe {known.recipe}."
        )


def mention_arithmetic(teacher: ModelCard, recipe: Recipe, display: Display) -> None:
    """Say where the paper's recipe meets a teacher that does not compute in float32, as the paper's does."""
    is_papers = any(recipe.is_protocol_of(RECIPES[name]) for name in ("paper", "paper-domainnet"))
    if is_papers and teacher.dtype not in ("float32", "unknown"):
        display.note_once(
            f"The vendor computes {teacher.id} in {teacher.dtype}, and the paper's teacher is float32: to "
            "repeat the paper, ask for `vendor serve --dtype float32`."
        )


def mention_wording(wording: Wording, classes: Sequence[str], display: Display) -> None:
    """Say which classes keep the names of their folders, or the common prompt, where a file is for others."""
    files: tuple[tuple[str, Collection[str], str], ...] = (
        ("names", wording.words, "keep the names of their folders"),
        ("prompts", wording.prompts, "are asked for as without it"),
    )
    for what, told, instead in files:
        without = [name for name in classes if name not in told]
        if told and without:
            display.note_once(
                f"The file of {what} lacks {len(without)} of {len(classes)} classes, which {instead}: "
                f"{_named(without)}."
            )


def mention_size(examples: Sequence[Example], image_size: int, display: Display) -> None:
    """Say where most of what the student sees would be enlargement (benchmarks/notebook.md)."""
    side = median_low(example.side for example in examples)
    slightly_larger = 32 * (side // 32 + 1)
    if image_size > max(2 * side, slightly_larger):
        display.note_once(
            f"Half of the images are {side} px or less on their shorter side, and the student sees them at "
            f"{image_size} px: --image-size {slightly_larger} is faster, and can be more accurate."
        )


def mention_kept(pools: Sequence[str], display: Display) -> None:
    """Say which images without labels are learnt from as those of `--adapt`."""
    for pool in pools:
        display.note_once(
            f"{pool} has, by their names, images that a student was asked about (--keep). They show the "
            "domain where it works, so learning from them counts as --adapt and not as --unlabelled."
        )


def mention_ambiguous(folder: ImageFolder, examples: Sequence[Example], display: Display) -> None:
    """Say which pictures have two labels: a student is taught both."""
    alike: dict[str, dict[int, Example]] = {}
    for example in examples:
        alike.setdefault(example.digest, {}).setdefault(example.label, example)
    groups = [list(each.values()) for each in alike.values() if len(each) > 1]
    if groups:
        shown = [" = ".join(relative(each.path, folder.root) for each in group) for group in groups[:3]]
        display.note_once(
            f"{len(groups)} {'picture has' if len(groups) == 1 else 'pictures have'} two labels or more, and "
            f"a student would be taught each: {'; '.join(shown)}. `client data check` lists all."
        )


def mention_one_sided(
    folder: ImageFolder,
    examples: Sequence[Example],
    train: Sequence[int],
    held: Sequence[int],
    display: Display,
    *,
    few: str,
) -> None:
    """Say which classes and domains have images on one side of the split alone."""
    taught, tested = ({examples[position].label for position in side} for side in (train, held))
    if untaught := sorted(tested - taught):
        names = _named([folder.classes[label] for label in untaught])
        display.note_once(f"All images of {names} are held out, as the table says: none is trained on.")
    if untested := sorted(taught - tested):
        names = _named([folder.classes[label] for label in untested])
        display.note_once(
            f"No image of {names} is held out, for there are {few}: the accuracy does not tell about them."
        )
    gaps = [
        f"{domain}/{name}"
        for domain in {example.domain for example in examples}
        for name in folder.classes
        if not folder.files.get((domain, name))
    ]
    if gaps:
        display.note_once(f"There is no image of {_named(sorted(gaps))}.")
    learnt, measured = ({examples[position].domain for position in side} for side in (train, held))
    if unlearnt := sorted(measured - learnt):
        names = _named(unlearnt)
        display.note_once(
            f"All images of the domain {names} are held out, as the table says: none is trained on."
        )
    if unmeasured := sorted(learnt - measured):
        display.note_once(f"No image of the domain {_named(unmeasured)} is held out: it is not measured.")


def _named(names: Sequence[str]) -> str:
    """The first five of some names, and how many there are."""
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return f"{', '.join(names[:5])}{more}"


def unread_in(
    folder: ImageFolder, domains: Sequence[str], skipped: Sequence[Skipped], display: Display
) -> list[Skipped]:
    """The files of domains that are tested on which are left out, by names, places or as they are read.

    They are mentioned.
    """
    unread = [*folder.ignored_in(domains), *skipped]
    mention_skipped(unread, folder.root, display, listed_in=LISTS_ALL)
    return unread


def mention_skipped(
    skipped: Sequence[Skipped], root: Path, display: Display, *, listed_in: Path | str
) -> None:
    """Say which files are left out: the first five that may be missed, and how many there are by reason.

    Args:
        skipped: the files.
        root: their names are shown relative to it.
        display: where to say it.
        listed_in: which file of the run, command or option lists all.
    """
    missed = [file for file in skipped if file.is_loss]
    display.note_skipped(
        {relative(file.path, root): file.reason for file in missed}, listed_in=str(listed_in)
    )
    by_reason = counted(skipped)
    if by_reason.keys() & {LOOSE_IN_ROOT, LOOSE_IN_DOMAIN}:
        display.note_once(f"Loose pictures are in no class: put them into {root}/<domain>/<class>/.")
    if len(by_reason) > 1 or len(skipped) > len(missed):
        left_out = f"Left out: {described(by_reason)}"
        display.note_once(f"{left_out}; {listed_in} lists them.", about=f"{left_out} of {root}")
