"""The plane of labels and queries on the bundled icons, and what it says of a plan; benchmarks/plane.py."""

from functools import cache
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

# Points that are no gain, and how many times more or fewer labels are as good as the same number.
_NOISE, _ALIKE = 1.0, 2.0


class PlaneCell(BaseModel):
    """The accuracy with so many labels and queries; without queries, the best method that asks nothing."""

    model_config = ConfigDict(frozen=True)

    labels: float = Field(description="labels a class, over all source domains")
    queries: float
    accuracy: float = Field(description="in %, on a style that is held out; the mean over styles and seeds")


class Plane(BaseModel):
    """All cells, and how they were measured."""

    model_config = ConfigDict(frozen=True)

    image_size: int
    steps: int
    styles: list[str]
    seeds: int
    cells: list[PlaneCell]

    @property
    def described(self) -> str:
        """How it was measured."""
        seeds = f"{self.seeds} seed{'s' * (self.seeds != 1)}"
        return f"{self.image_size} px, {self.steps} steps, {' and '.join(self.styles)} held out, {seeds}"

    def advice(self, labels: float, queries: float) -> str:
        """What the plane says of a run with so many labels a class that uses so many queries.

        It looks at the nearest number of labels and interpolates between queries, both by their logarithms.
        What is far from all that was measured is said to be unknown.
        """
        near = min(
            {cell.labels for cell in self.cells}, key=lambda each: abs(np.log1p(each) - np.log1p(labels))
        )
        if not 1 / _ALIKE <= (labels + 1) / (near + 1) <= _ALIKE:
            return f"What queries are worth with {labels:.0f} labels a class was not measured on icons."
        row = sorted((c.queries, c.accuracy) for c in self.cells if c.labels == near)
        across, up = np.log1p([each for each, _ in row]), [share for _, share in row]
        free, had = up[0], float(np.interp(np.log1p(queries), across, up))
        said = (
            f"On the bundled icons with {near:.0f} labels a class ({self.described}) a student had "
            f"{free:.1f}% without queries and {had:.1f}% with as many as here"
        )
        if had - free < _NOISE:
            return (
                f"{said}: no gain beyond chance. Train with --method label-only first, and buy if that falls "
                "short."
            )
        said += self._labels_without_queries(had)
        enough = next((each for each, share in row if each and share >= had - _NOISE), queries)
        if enough < 0.9 * queries:
            said += f" {enough:,.0f} queries did as well there: begin with --budget {enough:.0f}."
        return said

    def _labels_without_queries(self, accuracy: float) -> str:
        free = sorted((c.labels, c.accuracy) for c in self.cells if not c.queries)
        labels, shares = [each for each, _ in free], np.maximum.accumulate([share for _, share in free])
        if len(free) < 2 or accuracy <= shares[0]:
            return "."
        if accuracy > shares[-1]:
            return f", which {labels[-1]:.0f} labels a class did not reach without them."
        alike = np.expm1(np.interp(accuracy, shares, np.log1p(labels)))
        return f", as much as about {alike:.0f} labels a class gave without them."


@cache
def measured_plane() -> Plane:
    """The plane of plane.json, which benchmarks/plane.py writes."""
    return Plane.model_validate_json(Path(__file__).with_name("plane.json").read_text(encoding="utf-8"))
