"""The table of many runs, against means and deviations worked out by hand."""

import csv
import json
from dataclasses import replace
from io import StringIO
from typing import Any

import pytest

from client.results.comparison_table import (
    ComparisonTable,
    Setting,
    as_csv,
    as_latex,
    as_markdown,
    as_text,
    rows_of,
)
from client.results.run_result import RunResult


def _run(method: str, target: str, seed: int, out: float, inside: float = 0.9) -> RunResult:
    return RunResult(method, target, seed, inside, out, queries=100, cost_micros=2500, seconds=7.5)


RESULTS = [
    _run("erm", "a_b", 0, 0.50), _run("erm", "c", 0, 0.30),
    _run("erm", "a_b", 1, 0.60), _run("erm", "c", 1, 0.20),
    _run("kd", "a_b", 0, 0.54), _run("kd", "c", 0, 0.56, 0.8), _run("kd", "a_b", 1, 0.54),
]  # fmt: skip

SETTING = Setting(
    data="a^b", images={"a_b": 1200, "c": 34}, classes=7, student="resnet50", image_size=224,
    teacher="icon-clip (fp_1)", queries=500, machine="2 CPU cores", planned=8,
)  # fmt: skip


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
    assert kd.in_domain is not None
    assert kd.in_domain.mean == pytest.approx(87.5)  # of 85 and 90


def test_every_format_says_the_same() -> None:
    assert "55.0 ± 7.1" in as_text(RESULTS, SETTING)
    assert ComparisonTable.of(RESULTS, SETTING).to_json()["rows"][0]["by_target"]["c"][
        "mean"
    ] == pytest.approx(25)
    assert json.loads(json.dumps(ComparisonTable.of(RESULTS, SETTING).to_json()))["runs"][0]["seed"] == 0
    (first, second) = csv.DictReader(StringIO(as_csv(RESULTS, SETTING)))
    assert float(first["a_b_deviation"]) == pytest.approx(50**0.5)
    assert second["c_deviation"] == ""
    assert r"| erm | **55.0 ± 7.1** | 25.0 ± 7.1 |" in as_markdown(RESULTS, SETTING)
    assert r"a\_b" in as_markdown(RESULTS, SETTING)
    assert r"erm & \textbf{55.0 $\pm$ 7.1} & 25.0 $\pm$ 7.1 &" in as_latex(RESULTS, SETTING)
    assert r"a\_b" in as_latex(RESULTS, SETTING)


def test_accuracy_that_no_run_measured_is_an_empty_cell() -> None:
    unmeasured = [replace(each, in_domain=None) for each in RESULTS[:4]]
    erm, kd = rows_of([*unmeasured, *RESULTS[4:]])
    assert (erm.in_domain, kd.in_domain) == (None, rows_of(RESULTS)[1].in_domain)
    half = rows_of([*unmeasured[:2], *RESULTS[2:4]])[0].in_domain
    assert half is not None
    assert half.mean == pytest.approx(90)
    assert half.deviation is None  # of seed 1 alone

    assert ComparisonTable.of(unmeasured, SETTING).to_json()["rows"][0]["in_domain"] is None
    (row,) = csv.DictReader(StringIO(as_csv(unmeasured, SETTING)))
    assert (row["in_domain_mean"], row["in_domain_deviation"]) == ("", "")
    assert "| 25.0 ± 7.1 |  | 100 |" in as_markdown(unmeasured, SETTING)
    assert r"& 25.0 $\pm$ 7.1 &  & 100 &" in as_latex(unmeasured, SETTING)
    text = as_text(unmeasured, SETTING)
    assert "25.0 ± 7.1                 100" in text
    assert "nothing of the source domains is held out, so the last weights are kept." in " ".join(
        text.split()
    )


def test_a_table_says_what_it_was_measured_with() -> None:
    caption = (
        "Accuracy in % on each domain held out in turn, mean ± sample deviation over 2 seeds; weights are "
        "chosen on hold-outs of the source domains. In pairs of the same domain and seed, beside erm: kd "
        "+12.5 (2 of 3 pairs). a^b: 1,234 images (a_b 1,200, c 34) of 7 classes. "
        "Student: resnet50 at 224 px. Teacher: icon-clip (fp_1). No run uses more than 500 embeddings. "
        "Trained on 2 CPU cores. Only 7 of 8 runs have finished."
    )
    assert caption in " ".join(as_text(RESULTS, SETTING).split())
    assert caption.replace("_", r"\_") in as_markdown(RESULTS, SETTING)
    latex = as_latex(RESULTS, SETTING)
    assert r"\caption{Accuracy in \% on each domain" in latex
    assert r"mean $\pm$ sample" in latex
    assert r"a\textasciicircum{}b: 1,234 images (a\_b 1,200, c 34)" in latex
    assert ComparisonTable.of(RESULTS, SETTING).to_json()["setting"]["images"] == {"a_b": 1200, "c": 34}
    whole = replace(SETTING, planned=7, teacher=None, queries=None).caption(RESULTS[:1])
    assert whole.startswith("Accuracy in % on each domain held out in turn, one seed;")
    assert "Only 1 of 7" in whole
    assert "Teacher" not in whole


def test_rows_that_the_budget_does_not_limit_are_named() -> None:
    asked = [
        replace(_run(name, "c", seed, 0.5), queries=501)
        for name in ("zero-shot", "unlimited")
        for seed in (0, 1)
    ]
    caption = SETTING.caption([*RESULTS, *asked])
    assert "No run uses more than 500 embeddings, but for zero-shot, unlimited. " in caption


def test_the_best_student_is_bold_and_the_teacher_does_not_compete() -> None:
    teacher = replace(_run("zero-shot", "c", 0, 0.99), is_teacher=True)
    rows = as_markdown([_run("erm", "c", 0, 0.5), _run("kd", "c", 0, 0.6), teacher], SETTING).splitlines()
    assert [line.split(" | ")[1] for line in rows[2:5]] == ["50.0", "**60.0**", "99.0"]
    (only,) = as_markdown([teacher], SETTING).splitlines()[2:3]
    assert "**" not in only


def test_names_stay_names_in_every_format() -> None:
    results = [_run("=kd", "@SUM(A1)|<b>", 0, 0.5)]
    header, row = csv.reader(StringIO(as_csv(results, SETTING)))
    assert header[1:3] == ["'@SUM(A1)|<b>_mean", "'@SUM(A1)|<b>_deviation"]
    assert row[0] == "'=kd"
    first = as_markdown(results, SETTING).splitlines()[0]
    assert first.startswith(r"| method | \@SUM(A1)\|\<b\> | mean |")
    text = as_text([_run("kd", "a\x1b[2Jb", 0, 0.5)], replace(SETTING, data="c\x1b[2Jd"))
    assert r"a\x1b[2Jb" in text.splitlines()[0]
    assert r"c\x1b[2Jd: 1,234 images" in text
    assert "\x1b" not in text


@pytest.mark.parametrize(
    ("field", "title"),
    [
        ("over_classes", "by class"),
        ("over_twins", "twins as one"),
        ("in_domain_cross_fitted", "cross-fitted"),
    ],
)
def test_other_means_are_columns_where_they_were_measured(field: str, title: str) -> None:
    assert title not in as_text(RESULTS, SETTING)
    less: list[dict[str, Any]] = [{field: each.out_of_domain - 0.1} for each in RESULTS[:4]]
    known = [replace(each, **part) for each, part in zip(RESULTS[:4], less, strict=True)]
    header, _, erm, kd = as_markdown([*known, *RESULTS[4:]], SETTING).splitlines()[:4]
    assert [cell.strip() for cell in header.split("|")][7] == title
    assert [cell.strip() for cell in erm.split("|")][7] == "**30.0 ± 0.0**"
    assert [cell.strip() for cell in kd.split("|")][7] == ""
