"""Results with much in them, and with nothing: what their pages are looked at with."""

import io
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
from PIL import Image

from client.results.asking import Answers, Right
from client.results.comparison_table import Setting
from client.results.predictions import LabelledPrediction, worst_mistakes
from client.results.records import Disagreement, Neighbour, Review
from client.results.report import Mistake, Pictured, ReportData
from client.results.run_result import RunResult
from tests.client.results.test_report import CHECK, METRICS, RECIPE, TEACHER, _plan, _run, _summary

LONG = "a-class-name-of-fifty-five-letters-which-nobody-shortened"
CLASSES = [LONG, *(f"class {number}" for number in range(1, 50))]
DOMAINS = ["line", "solid", "colour", "a style of drawing whose name goes on and on and on and on"]
TARGET = "emoji"


def thumbnail(seed: int) -> str:
    """A picture as a data URI."""
    pixels = np.random.default_rng(seed).integers(0, 255, (8, 8, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).resize((96, 96)).save(file, "JPEG")
    return f"data:image/jpeg;base64,{b64encode(file.getvalue()).decode()}"


def answers(count: int, classes: list[str], *, skill: float) -> list[LabelledPrediction]:
    """Calibrated answers about hold-outs of the domains and about the target."""
    rng = np.random.default_rng(count)
    made = []
    for number in range(count):
        label = classes[number % len(classes)]
        domain = [*DOMAINS, TARGET][number % 5]
        sure = float(rng.beta(5, 1)) * (0.75 if domain == TARGET else 1) * skill
        said = label if rng.random() < sure else classes[int(rng.integers(len(classes)))]
        made.append(
            LabelledPrediction(f"{domain}/{label}/{number}.png", domain, domain != TARGET, label, said, sure)
        )
    return made


def full_run() -> ReportData:
    """A run with everything that a report can show."""
    said = answers(1500, CLASSES, skill=0.95)
    right = {
        name: (
            float(np.mean([a.right for a in said if a.domain == name])),
            sum(a.domain == name for a in said),
        )
        for name in (*DOMAINS, TARGET)
    }
    accuracy: Mapping[str, Any] = {
        "in_domain": float(np.mean([right[name][0] for name in DOMAINS])),
        "out_of_domain": right[TARGET][0],
        "by_domain": {name: share for name, (share, _) in right.items()},
        "images_by_domain": {name: images for name, (_, images) in right.items()},
        "worst_domain": TARGET,
        "intervals_by_domain": {name: (share - 0.04, share + 0.04) for name, (share, _) in right.items()},
        "in_domain_interval": (0.78, 0.82),
        "out_of_domain_interval": (0.56, 0.65),
    }
    known = {"accuracy": 0.9, "images": 500, "on_test_set": False}
    summary = _summary(
        target_domain=TARGET, accuracy=accuracy, teacher=TEACHER.model_copy(update={"currency": "EUR"}),
        teacher_check={**CHECK, "accuracy_by_names": 0.91, "by_domain": dict.fromkeys(DOMAINS, known),
                       "by_class": {LONG: 0.6}},
        teacher_zero_shot={**dict.fromkeys(DOMAINS, known)},
        speed={"device": "cpu", "milliseconds": 108.4, "images_per_second": 30.0,
               "onnx": {"milliseconds": 2.2, "images_per_second": 700.0}},
    )  # fmt: skip
    plan = _plan(classes=CLASSES, source_domains=DOMAINS, target_domain=TARGET)
    doubt = Disagreement(image=f"{LONG}.png", domain="line", label=LONG, teacher="class 7", lead=0.2)
    wrong = worst_mistakes([a for a in said if not a.seen], 12)
    like = Pictured(Neighbour(image="n.png", label=LONG, cosine=0.9), thumbnail(99))
    return ReportData(
        summary, plan, f"/home/somebody/{LONG}", RECIPE, METRICS, said,
        [Mistake(each, thumbnail(n) if n % 5 else None, like) for n, each in enumerate(wrong)],
        review=Review(compared=1300, disagree=26, disagreements=[doubt], neighbours={}),
        doubted=[Pictured(doubt, thumbnail(n)) for n in range(5)], folder="/home/somebody/runs/emoji-1",
    )  # fmt: skip


def bare_run() -> ReportData:
    """A run of which nothing was measured: no label, no teacher, no target."""
    nothing: Mapping[str, Any] = {
        "in_domain": None,
        "out_of_domain": None,
        "by_domain": {},
        "images_by_domain": {},
        "worst_domain": None,
    }
    summary = _summary(
        target_domain=None, accuracy=nothing, holdout_images=0, train_images=0, unlabelled_images=500,
        calibration_error={"in_domain": None, "out_of_domain": None},
        teacher_zero_shot={}, teacher_check=None,
    )  # fmt: skip
    return replace(
        _run(), summary=summary, plan=_plan(target_domain=None, source_domains=[]), predictions=[],
        metrics=[], mistakes=[],
    )  # fmt: skip


RUNS = {"full": full_run, "one": _run, "bare": bare_run}


Table = tuple[list[RunResult], Setting, list[Answers], tuple[int | None, str | None]]
_METHODS = {"zero-shot": 0, "erm": 0, "label-only": 0, "kd": 1300, "vl2v-adip": 25_000, LONG: 25_000}


def full_table() -> Table:
    """A comparison of six methods on four domains with three seeds."""
    rng = np.random.default_rng(1)
    results, found = [], []
    for place, (method, queries) in enumerate(_METHODS.items()):
        for target, seed in product(DOMAINS, range(3)):
            share = 0.72 + 0.02 * place + float(rng.normal(0, 0.02))
            results.append(
                RunResult(
                    method, target, seed, share + 0.1, share, queries, 100 * queries, 61.5,
                    is_teacher=method == "zero-shot", over_classes=share - 0.03,
                    over_twins=share - 0.01, in_domain_cross_fitted=share + 0.09,
                )
            )  # fmt: skip
            if method != "zero-shot":
                said = [each for each in answers(500, CLASSES[:9], skill=share) if each.domain == target]
                found.append(Answers(method, target, said, Right(0.9, 300, {"class 1": 0.5})))
    setting = Setting(
        data="icons", images=dict.fromkeys(DOMAINS, 1600), classes=50, student="tf_efficientnet_lite0",
        image_size=128, teacher="icon-clip (fp_1)", queries=25_000, machine="2 CPU cores", planned=72,
    )  # fmt: skip
    return results, setting, found, (100, "EUR")


def bare_table() -> Table:
    """A comparison of one run that asked nobody."""
    results, setting, _, _ = full_table()
    return (
        [replace(results[12], over_classes=None, over_twins=None, in_domain_cross_fitted=None)],
        replace(setting, teacher=None),
        [],
        (None, None),
    )


TABLES = {"full": full_table, "one": bare_table}
