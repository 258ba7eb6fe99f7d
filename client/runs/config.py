"""The configuration of a run: its options, settled."""

import json
import os
from pathlib import Path
from typing import Any, Self

from pydantic import Field

from client.data.sources.source import data_name
from client.learning.backbones import DEFAULT_BACKBONE
from client.learning.recipe import Recipe
from client.options.training import RunOptions


class RunConfig(RunOptions):
    """The options of a run, settled: paths from the root, and the numbers that they leave to the student.

    The budget is not among them, so a run can go on with more. `config.json` holds them all.
    """

    data: Path = Field(description="The image folder, a table, or a file of class names.")
    method: str = Field(default="vl2v-adip", description="How to train; of one that is plugged in, the name.")
    student: str = Field(default=DEFAULT_BACKBONE, description="The backbone; of one's own, the name.")
    transform: str | None = Field(default=None, description="The user's own random view; its name.")
    select: str = Field(default="stratified", description="How images are chosen to be bought; its name.")
    image_size: int = Field(description="Side of the student's input in pixels.")
    recipe: Recipe = Field(description="The training protocol, with the method's variants.")
    unlabelled: tuple[str, ...] = Field(default=(), description="Images without labels (`find_pool`).")
    adapt: tuple[str, ...] = Field(
        default=(), description="The same of the domain where the student will work."
    )
    use_at_most: int | None = Field(
        default=None, description="How many embeddings the run may use, whoever bought them."
    )

    def changed(self, **changes: Any) -> Self:  # noqa: ANN401 (as each option has it)
        """The same run with some other options, which are checked."""
        return self.model_validate({**dict(self), **changes})

    @property
    def pools(self) -> tuple[str, ...]:
        """Where images without labels are."""
        return (*self.unlabelled, *self.adapt)

    @property
    def usual_folder(self) -> Path:
        """Where a run goes for which no --out is given: a name that says what it is."""
        data = data_name(self.data) or "images"
        name = f"{data}-{self.target_domain or 'all'}-{self.method}-seed{self.seed}"
        return Path("runs") / name.replace(os.sep, "-")

    def to_json(self) -> dict[str, Any]:
        """The content of `config.json` as it reads back: tuples are lists, and paths are texts."""
        value: dict[str, Any] = json.loads(json.dumps(self.model_dump(), default=str))
        return value
