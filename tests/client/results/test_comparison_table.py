"""The table of many runs, against means and deviations worked out by hand."""

import csv
import json
from io import StringIO

import pytest

from client.results.comparison_table import (
    RunResult,
    as_csv,
    as_json,
    as_latex,
    as_markdown,
    as_text,
    rows_of,
)


def _run(method: str, target: str, seed: int, out: float, inside: float = 0.9) -> RunResult:
    return RunResult(method, target, seed, inside, out, queries=100, cost_micros=2500, seconds=7.5)


RESULTS = [
    _run("erm", "a_b", 0, 0.50), _run("erm", "c", 0, 0.30),
    _run("erm", "a_b", 1, 0.60), _run("erm", "c", 1, 0.20),
    _run("kd", "a_b", 0, 0.54), _run("kd", "c", 0, 0.56, 0.8), _run("kd", "a_b", 1, 0.54),
]  # fmt: skip


def test_means_and_deviations_are_over_seeds() -> None:
    erm, kd = rows_of(RESULTS)
    assert erm.by_target["a_b"].mean == pytest.approx(55)
    assert erm.by_target["a_b"].deviation == pytest.approx(50**0.5)  # of 50 and 60
    assert erm.mean.mean == pytest.approx(40)
    assert erm.mean.deviation == pytest.approx(0, abs=1e-9)  # 40 in both seeds
    assert erm.worst.mean == pytest.approx(25)
    assert erm.worst.deviation == pytest.approx(50**0.5)
    assert erm.runs == 4
    assert kd.by_target["c"].deviation is None  # one seed
    assert kd.in_domain.mean == pytest.approx(87.5)  # of 85 and 90


def test_every_format_says_the_same() -> None:
    assert "55.0 ± 7.1" in as_text(RESULTS)
    assert as_json(RESULTS)["rows"][0]["by_target"]["c"]["mean"] == pytest.approx(25)
    assert json.loads(json.dumps(as_json(RESULTS)))["runs"][0]["seed"] == 0
    (first, second) = csv.DictReader(StringIO(as_csv(RESULTS)))
    assert float(first["a_b_deviation"]) == pytest.approx(50**0.5)
    assert second["c_deviation"] == ""
    assert r"| erm | **55.0 ± 7.1** | 25.0 ± 7.1 |" in as_markdown(RESULTS)
    assert r"a\_b" in as_markdown(RESULTS)
    assert r"erm & \textbf{55.0 $\pm$ 7.1} & 25.0 $\pm$ 7.1 &" in as_latex(RESULTS)
    assert r"a\_b" in as_latex(RESULTS)
