"""Whether a run's student is the one that is asked for: it has the digest of everything it depends on."""

from dataclasses import dataclass

from client.data.wording import Wording
from client.learning.backbones import BUNDLED_TEACHER, local_files
from client.learning.methods import method_of
from client.results.records import Plan
from client.runs.code import code_of
from client.runs.config import RunConfig
from client.runs.dataset import Dataset
from client.runs.digest import FileContent, StageInputs, contents, digest_of
from client.runs.folder import RunFolder
from client.runs.plans import describe_plan
from client.runs.targets import Targets


@dataclass(frozen=True)
class StudentInputs(StageInputs):
    """The inputs that a student depends on."""

    config: RunConfig
    classes: tuple[str, ...]
    wording: Wording
    images: str
    targets: str
    trained: tuple[int, ...]
    weights: tuple[FileContent, ...]
    teacher: tuple[FileContent, ...]
    code: str


def student_stamp(config: RunConfig, dataset: Dataset, targets: Targets) -> str:
    """The digest of everything that training depends on: an artefact of another one is made anew.

    It is the same on every machine; where something is plugged in, with the same version of Python.
    """
    bundled = method_of(config.method).teacher == "bundled"
    inputs = StudentInputs(
        config=config,
        classes=dataset.classes,
        wording=dataset.wording,
        images=dataset.content,
        targets=targets.content,
        trained=tuple(targets.train),
        weights=contents(local_files(config.student, config.student_weights)),
        teacher=contents(local_files(BUNDLED_TEACHER, None)) if bundled else (),
        code=code_of(config),
    )
    return digest_of(inputs)


def why_outdated(run: RunFolder, config: RunConfig, dataset: Dataset, *, may_buy: bool) -> str:
    """Why a finished student is not the one that is asked for."""
    differ = _differences(run, config, dataset)
    changed = " and ".join(differ) or ("answers to buy" if may_buy else "images, answers, code or weights")
    return f"{run.path} holds a finished student of other {changed}, which training anew would replace."


def _differences(run: RunFolder, config: RunConfig, dataset: Dataset) -> list[str]:
    """In what the images are others than those of which the run has a plan."""
    before = run.record(Plan, run.plan) if run.plan.exists() else None
    now = describe_plan(config, dataset, None, None)
    differ = {
        "classes": before is None or before.classes != now.classes,
        "prompts": before is not None and before.wording != now.wording,
        "numbers of images": before is None or before.images_by_domain != now.images_by_domain,
    }
    return [words for words, they_do in differ.items() if they_do]
