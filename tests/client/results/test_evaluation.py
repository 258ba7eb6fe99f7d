"""Accuracy by domain, averaged as DomainBed does."""

import pytest

from client.results.evaluation import Evaluation, ShareCorrect, accuracy_by_domain, cross_fitted
from client.results.intervals import wilson
from client.results.predictions import LabelledPrediction


def test_accuracy_is_counted_by_domain() -> None:
    right = [True, True, False, False, True, False]
    assert accuracy_by_domain(right, ["a", "a", "a", "a", "b", "b"]) == {
        "a": ShareCorrect(0.5, 4),
        "b": ShareCorrect(0.5, 2),
    }


def test_averages_are_over_domains_not_images() -> None:
    evaluation = Evaluation(
        sources={"a": ShareCorrect(0.9, 1000), "b": ShareCorrect(0.5, 10)},
        targets={"c": ShareCorrect(0.4, 7)},
    )
    assert evaluation.in_domain == pytest.approx(0.7)
    assert evaluation.out_of_domain == 0.4
    assert evaluation.worst_domain == "c"
    record = evaluation.record
    assert record.images_by_domain == {"a": 1000, "b": 10, "c": 7}
    assert record.by_domain == {"a": 0.9, "b": 0.5, "c": 0.4}
    assert (record.in_domain, record.out_of_domain, record.worst_domain) == (evaluation.in_domain, 0.4, "c")


def test_the_mean_over_classes_counts_a_rare_class_as_much_as_a_common_one() -> None:
    answers = [
        ("a", True, "cat", "cat"), ("a", True, "cat", "cat"), ("a", True, "cat", "cat"),
        ("a", True, "dog", "cat"), ("b", True, "cat", "cat"),
        ("c", False, "dog", "dog"), ("c", False, "cat", "dog"), ("c", False, "cat", "cat"),
    ]  # fmt: skip
    record = Evaluation.of(
        [LabelledPrediction("1.png", domain, seen, label, said, 0.9) for domain, seen, label, said in answers]
    ).record
    assert record.in_domain == pytest.approx((3 / 4 + 1) / 2)
    assert record.in_domain_over_classes == pytest.approx((1 / 2 + 1) / 2)
    assert record.out_of_domain == pytest.approx(2 / 3)
    assert record.out_of_domain_over_classes == pytest.approx((1 + 1 / 2) / 2)
    nobody = Evaluation.of([]).record
    assert (nobody.in_domain_over_classes, nobody.out_of_domain_over_classes) == (None, None)


def test_near_twins_of_a_domain_have_one_vote_together_and_the_interval_counts_votes() -> None:
    answers = [
        ("a", True, 7, 1), ("a", True, 7, 1), ("a", True, 7, 1), ("a", True, 7, 0), ("a", True, 2, 0),
        ("b", True, 7, 1), ("c", False, 7, 0), ("c", False, 4, 1), ("c", False, 4, 1),
    ]  # fmt: skip
    predictions = [
        LabelledPrediction("1.png", domain, seen, "cat", "cat" if right else "dog", 0.9)
        for domain, seen, _, right in answers
    ]
    record = Evaluation.of(predictions, [group for _, _, group, _ in answers]).record
    assert record.in_domain == pytest.approx((3 / 5 + 1) / 2)
    assert record.in_domain_over_twins is not None
    assert record.in_domain_over_twins.accuracy == pytest.approx(((3 / 4 + 0) / 2 + 1) / 2)
    assert record.out_of_domain == pytest.approx(2 / 3)
    assert record.out_of_domain_over_twins is not None
    assert record.out_of_domain_over_twins.accuracy == 1 / 2
    assert record.out_of_domain_over_twins.interval == pytest.approx(wilson(1 / 2, 2))
    assert record.twin_groups_by_domain == {"a": 2, "b": 1, "c": 2}
    ungrouped = Evaluation.of(predictions).record
    assert (ungrouped.in_domain_over_twins, ungrouped.twin_groups_by_domain) == (None, {})


def test_each_half_of_the_hold_outs_scores_the_state_that_is_best_on_the_other() -> None:
    def row(step: int, first: tuple[float, float], second: tuple[float, float]) -> dict[str, float]:
        halves = {"first_half": first, "second_half": second}
        told = {f"{half}_{what}": value for half, (right, loss) in halves.items()
                for what, value in (("accuracy", right), ("loss", loss))}  # fmt: skip
        return {"step": step, **told}

    rows = [
        row(10, (0.75, 0.9), (0.5, 0.2)),
        row(20, (0.75, 0.4), (0.25, 0.1)),  # the first half chooses it: as accurate, and the loss is lower
        row(30, (0.5, 0.1), (1.0, 0.3)),
        row(40, (0.25, 0.1), (1.0, 0.3)),  # the second half does: the latest among equals
    ]
    assert cross_fitted(rows) == (0.25 + 0.25) / 2
    assert cross_fitted(rows[:2]) == (0.25 + 0.75) / 2
    assert cross_fitted([{"step": 1, "holdout_domain_mean_accuracy": 0.5}]) is None
