"""Students of weakened teachers beside fine-tuning: does a customer who pays for one lose by it?

    python -m benchmarks.weak_teachers

A share of the classes is called by each other's texts, so that the teacher is right about the others alone.
Of each such teacher one student learns as of a good one, and one as `weigh_teacher` says
(client/learning/trust.py).
"""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.accuracy import RUNS, customer, icons
from client.buying.queries import Query
from client.buying.teacher import Teacher
from client.learning.recipe import Recipe
from client.progress import Display
from client.results.records import Summary
from client.runs.distillation import Distillation
from client.runs.folder import RunConfig, RunFolder


class WeakTeacher(Teacher):
    """A teacher that calls a share of the classes by each other's texts."""

    def __init__(self, teacher: Teacher, share: float) -> None:
        """Weaken a teacher, which goes on as it is."""
        vars(self).update(vars(teacher))
        self._share = share

    def lookup(self, queries: Sequence[Query]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """What was bought, the class texts of some classes in turn."""
        vectors, have = super().lookup(queries)
        if queries and all(query.kind == "text" for query in queries):
            rows = np.random.default_rng(0).permutation(len(queries))[: round(self._share * len(queries))]
            vectors[rows] = vectors[np.roll(rows, 1)]
        return vectors, have


def main() -> None:
    """Run all, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--targets", nargs="+", default=["pixel", "emoji"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--shares", type=float, nargs="+", default=[0.2, 0.4, 0.6, 0.8])
    parser.add_argument("--image-size", type=int, default=64)
    parser.add_argument("--steps", type=int, default=300)
    arguments = parser.parse_args()
    recipe = Recipe().with_steps(arguments.steps)
    rows: list[tuple[str, str, list[Summary]]] = []
    with customer() as connection, TemporaryDirectory() as folder:

        def run(method: str, recipe: Recipe, share: float) -> list[Summary]:
            return [
                _run(
                    method,
                    recipe,
                    share,
                    target,
                    seed,
                    Path(folder) / f"{method}-{share}-{recipe.weigh_teacher}",
                )
                for target in arguments.targets
                for seed in arguments.seeds
            ]

        def _run(method: str, recipe: Recipe, share: float, target: str, seed: int, out: Path) -> Summary:
            config = RunConfig(
                str(icons()),
                target,
                method,
                "efficientnet_lite0",
                arguments.image_size,
                seed,
                "stratified",
                recipe,
            )
            run = RunFolder(out / f"{target}-{seed}")
            run_id = run.begin(config)
            options: dict[str, Any] = {"device": "cpu", "pixels": RUNS / "pixels", "onnx": False}
            if method == "erm":
                summary = Distillation(config, run, None, Display(), **options).execute()
            else:
                with connection.teacher(run_id=run_id, budget=None) as teacher:
                    weak = WeakTeacher(teacher, share)
                    summary = Distillation(config, run, weak, Display(), **options).execute()
            assert summary is not None
            return summary

        rows.append(("none", "erm", run("erm", recipe, 0.0)))
        for share in arguments.shares:
            for weighed in (False, True):
                summaries = run("vl2v-adip", replace(recipe, weigh_teacher=weighed), share)
                right = fmean(s.teacher_check.accuracy for s in summaries if s.teacher_check is not None)
                name = "vl2v-adip, weighed" if weighed else "vl2v-adip, as of a good teacher"
                rows.append((f"{100 * right:.0f}%", name, summaries))
            _print(rows, arguments.targets)


def _print(rows: Sequence[tuple[str, str, Sequence[Summary]]], targets: Sequence[str]) -> None:
    print("| the teacher is right | student | " + " | ".join(targets) + " | in-domain |")
    print("|---" * (3 + len(targets)) + "|")
    for right, name, summaries in rows:
        cells = [
            fmean(float(s.accuracy.out_of_domain or 0) for s in summaries if s.target_domain == target)
            for target in targets
        ]
        cells.append(fmean(float(s.accuracy.in_domain or 0) for s in summaries))
        print(f"| {right} | {name} | " + " | ".join(f"{100 * cell:.1f}" for cell in cells) + " |", flush=True)


if __name__ == "__main__":
    main()
