"""The report and the model card say what the summary says, and nothing that a name smuggles in."""

from typing import Any

from client.results.report import render_model_card, render_report

PLAN = {"source_domains": ["line", "solid"], "classes": ["cat", "<script>alert(1)</script>"]}


def _summary(**changes: Any) -> dict[str, Any]:
    summary = {
        "method": "vl2v-adip",
        "student": "efficientnet_lite0",
        "image_size": 64,
        "target_domain": "<b>pixel</b>",
        "seed": 0,
        "steps": 200,
        "steps_kept": [150, 150],
        "accuracy": {
            "in_domain": 0.8125,
            "out_of_domain": 0.437,
            "by_domain": {"line": 0.8, "solid": 0.825, "<b>pixel</b>": 0.437},
            "images_by_domain": {"line": 80, "solid": 90, "<b>pixel</b>": 238},
            "worst_domain": "<b>pixel</b>",
        },
        "queries_bought": 1300,
        "queries_cached": 52,
        "cost_micros": 126_040,
        "teacher": {"id": "icon-clip", "fingerprint": "fp_1"},
        "train_images": 1300,
        "holdout_images": 320,
        "skipped_images": 1,
        "seconds": {"align": 10.0, "distill": 95.21},
    }
    return {**summary, **changes}


METRICS = [
    {"stage": "distill", "step": step, "loss": -0.8, "holdout_accuracy": step / 250, "holdout_loss": 1.0}
    for step in (50, 100, 150, 200)
]


def test_the_report_shows_the_numbers_and_escapes_names() -> None:
    page = render_report(_summary(), PLAN, METRICS)
    for shown in ("43.7%", "81.2%", "1300", "0.1260", "fp_1", "<polyline"):
        assert shown in page
    assert "<b>pixel" not in page
    assert "http" not in page.replace("http-equiv", "")


def test_the_model_card_shows_the_numbers() -> None:
    card = render_model_card(_summary(), PLAN)
    for shown in ("| line | 80.0 | 80 |", "never seen in training", "1300 queries bought", "after step 150"):
        assert shown in card


def test_a_method_without_a_teacher_has_none_in_its_pages() -> None:
    summary = _summary(teacher=None, queries_bought=0, cost_micros=0)
    assert "No teacher, no queries" in render_model_card(summary, PLAN)
    assert "fingerprint" not in render_report(summary, PLAN, METRICS)


def test_an_averaged_student_says_over_which_steps() -> None:
    summary = _summary(steps_kept=[101, 200])
    assert "steps 101 to 200" in render_model_card(summary, PLAN)
    assert "<rect" in render_report(summary, PLAN, METRICS)
