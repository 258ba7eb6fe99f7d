"""The JSON files of a run as models: what the files hold is what comes out again, byte for byte."""

import json
from pathlib import Path
from typing import Any

import pytest

from client.results.comparison_table import ComparisonTable, Setting
from client.results.intervals import interval_of_mean, wilson
from client.results.records import Plan, Purchase, Record, Summary, TeacherCheck, described_check
from client.results.run_result import RunResult
from client.runs.folder import RunFolder
from tests.client.cards import MODEL

# The fields in the order that the files have had since there are any.
PLAN: dict[str, Any] = {
    "method": "vl2v-adip",
    "target_domain": "red",
    "source_domains": ["dark", "light"],
    "classes": ["circle", "tall bar"],
    "wording": {"templates": ["a {}"], "words": {"tall bar": "bar"}, "prompts": {"circle": ["a ring"]}},
    "train_images": 28,
    "holdout_images": 8,
    "images_by_domain": {"light": 18, "dark": 18},
    "unlabelled_images": 9,
    "unseen_images": 2,
    "steps": 1200,
    "left_out": {"hidden": 2, "empty file": 1},
    "skipped": [{"path": "dark/caf\\udce9.png", "reason": "empty file"}],
    "model": MODEL.model_dump(mode="json"),
    "purchase": {
        "prompts": 2,
        "images": 28,
        "duplicates": 1,
        "cached": 4,
        "to_buy": 25,
        "unaffordable": 0,
        "cost_micros": 2340,
        "budget_left": None,
        "to_buy_by_domain_and_class": {"dark": {"circle": 12}, "light": {"circle": 11}},
        "tranches": [
            {
                "name": "labelled",
                "queries": 28,
                "cached": 3,
                "to_buy": 24,
                "unaffordable": 0,
                "cost_micros": 2300,
            }
        ],
    },
}
OUTLOOK = {
    "quote": {
        "cost_micros": 2340,
        "quota_left": None,
        "fits_quota": True,
        "fits_money": True,
        "seconds_at_rate_limit": 3,
        "currency": None,
    },
    "prices_known": True,
    "seconds": 3,  # the whole number stays one
}
WILSON = wilson(0.75, 14)
ZERO_SHOT = {"accuracy": 0.75, "images": 14, "on_test_set": False, "interval": WILSON}
CHECK = {
    "accuracy": 0.75,
    "by_domain": {"dark": ZERO_SHOT},
    "gap": 0.21,
    "trusted": False,
    "learnt_from": True,
    "doubtful": ["a fox"],
    "named_by_images": ["a cat"],
    "accuracy_by_names": 0.8,
    "by_class": {"cat": 0.75},
    "more_to_settle": 120,
    "interval": interval_of_mean([(0.75, 14)]),
}
PURCHASE = {
    "queries_bought": 25,
    "queries_cached": 4,
    "cost_micros": 2340,
    "refused": [{"name": "/data/caf\udce9/a.png", "reason": "too large"}],  # a path that is not Unicode
}
SUMMARY: dict[str, Any] = {
    "method": "vl2v-adip",
    "student": "tf_efficientnet_lite0",
    "image_size": 32,
    "target_domain": "red",
    "seed": 0,
    "steps": 6,
    "images_per_domain": 16,
    "steps_kept": [3, 6],
    "queries_bought": 25,
    "queries_cached": 4,
    "cost_micros": 2340,
    "teacher": MODEL.model_dump(mode="json"),
    "train_images": 28,
    "unlabelled_images": 9,
    "adapted": False,
    "weights_known": True,
    "holdout_images": 8,
    "skipped_images": 1,
    "seconds": {"buy": 0.1, "align": 2.0},
    "left_out": {"hidden": 2, "empty file": 1},
    "accuracy": {
        "in_domain": 1.0,
        "out_of_domain": 0.1 + 0.2,
        "in_domain_interval": (0.6, 1.0),
        "out_of_domain_interval": None,
        "by_domain": {"dark": 1.0, "light": 1.0, "red": 0.1 + 0.2},
        "images_by_domain": {"dark": 4, "light": 4, "red": 18},
        "worst_domain": "red",
        "intervals_by_domain": {"dark": (0.5, 1.0)},
        "in_domain_over_classes": 0.8,
        "out_of_domain_over_classes": None,
        "in_domain_cross_fitted": 0.7,
        "in_domain_over_twins": {"accuracy": 0.9, "interval": (0.5, 1.0)},
        "out_of_domain_over_twins": None,
        "twin_groups_by_domain": {"dark": 3, "light": 4},
    },
    "calibration_error": {"in_domain": 0.25, "out_of_domain": 0.5},
    "teacher_zero_shot": {"dark": ZERO_SHOT},
    "size": {"parameters": 3_700_000, "weights_mib": 14.1},
    "speed": {
        "device": "cpu",
        "milliseconds": 6.25,
        "images_per_second": 310.0,
        "onnx": {"milliseconds": 5.0, "images_per_second": 400.0},
    },
    "teacher_queries_per_second": None,
    "leave_one_out": {"dark": 0.5, "light": 0.75},
    "leave_one_out_intervals": {"dark": (0.25, 0.75)},
    "teacher_check": None,
}


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        (Plan, PLAN),
        (Plan, {**PLAN, "outlook": OUTLOOK}),
        (Plan, {**PLAN, "outlook": OUTLOOK, "teacher_check": CHECK}),
        (Plan, {**PLAN, "model": None, "purchase": None}),
        (Purchase, PURCHASE),
        (Summary, SUMMARY),
        (Summary, {**SUMMARY, "target_domain": None, "teacher_check": CHECK}),
        (Summary, {**SUMMARY, "teacher": None, "speed": {**SUMMARY["speed"], "onnx": None}}),
    ],
)
def test_a_file_is_written_as_it_was_read(
    kind: type[Record], content: dict[str, Any], tmp_path: Path
) -> None:
    run, file = RunFolder(tmp_path), tmp_path / "file.json"
    run.write(file, content)
    before = file.read_bytes()
    run.write(file, kind.model_validate(run.read(file)).to_json())
    assert file.read_bytes() == before


def test_a_table_is_one_of_dataclasses_as_before() -> None:
    setting = Setting("toy", {"dark": 9}, 3, "tf_efficientnet_lite0", 32, None, None, "2 CPU cores", 2)
    runs = [RunResult("erm", "dark", seed, 1.0, 0.5 + seed / 4, 0, 0, 1.5) for seed in (0, 1)]
    written = ComparisonTable.of(runs, setting).to_json()
    assert list(written) == ["setting", "rows", "differences", "curves", "runs"]
    assert written["runs"][1] == {
        "method": "erm", "target": "dark", "seed": 1, "in_domain": 1.0, "out_of_domain": 0.75, "queries": 0,
        "cost_micros": 0, "seconds": 1.5, "is_teacher": False, "out_of_domain_interval": None,
        "over_classes": None, "over_twins": None, "in_domain_cross_fitted": None,
        "labels": None, "budget": None,
    }  # fmt: skip
    (row,) = written["rows"]
    assert list(row) == [
        "method", "by_target", "mean", "worst", "in_domain", "queries", "cost_micros", "seconds", "runs",
        "is_teacher", "over_classes", "over_twins", "in_domain_cross_fitted", "by_seed",
    ]  # fmt: skip
    assert row["by_target"]["dark"] == row["mean"]
    assert row["mean"]["mean"] == 62.5
    read = ComparisonTable.model_validate(json.loads(json.dumps(written)))
    assert read.to_json() == written


@pytest.mark.parametrize(
    ("trusted", "doubtful", "named", "words", "absent"),
    [
        (True, [], [], "likely to help", "too few"),
        (True, ["a", "b"], [], "too few images of a, b: of these", "--method erm"),
        (False, [*"abcdefg"], [], "of a, b, c, d, e and 2 more classes: of these", "likely to help"),
        (True, [], [*"abcdef"], "know a, b, c, d, e and 1 more class by name", "too few"),
    ],
)
def test_a_check_of_the_teacher_says_what_is_learnt_of_it(
    trusted: bool, doubtful: list[str], named: list[str], words: str, absent: str
) -> None:
    changed = {"trusted": trusted, "doubtful": doubtful, "named_by_images": named}
    check = TeacherCheck.model_validate({**CHECK, **changed})
    assert check.doubts == (not trusted or bool(doubtful or named))
    told = described_check(check)
    assert words in told
    assert absent not in told
    assert ("--method erm" in told) == (not trusted)


@pytest.mark.parametrize("changed", [{"trusted": True}, {"trusted": False}, {"learnt_from": False}])
def test_a_mean_over_domains_is_not_told_as_a_share_of_images(changed: dict[str, bool]) -> None:
    one = {"accuracy": 0.75, "images": 14, "on_test_set": False}
    told = [
        described_check(TeacherCheck.model_validate({**CHECK, **changed, "by_domain": by_domain}))
        for by_domain in ({"dark": one}, {"dark": one, "light": one})
    ]
    assert ["75% of your labelled images right, in the mean over domains" in each for each in told] == [
        False,
        True,
    ]


def test_of_a_teacher_that_teaches_nothing_it_says_so() -> None:
    check = TeacherCheck.model_validate({**CHECK, "trusted": False, "learnt_from": False})
    assert check.doubts
    assert "from your labels alone; buy no more" in described_check(check)
