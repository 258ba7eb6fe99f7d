"""The report and the model card say what the run left, and nothing that a name smuggles in."""

import csv
import html
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from client.cli.tables import print_summary
from client.learning.methods import METHODS
from client.learning.recipe import RECIPES, Recipe
from client.results.predictions import (
    LabelledPrediction,
    confusion,
    predictions_as_csv,
    read_predictions,
    worst_mistakes,
)
from client.results.records import Disagreement, Neighbour, Plan, Review, Summary
from client.results.report import Mistake, Pictured, ReportData, render_model_card, render_report
from tests.client.cards import MODEL

if TYPE_CHECKING:
    from client.api.distillation import Run

HOSTILE = "<script>alert(1)</script>"
TARGET = '"><b>pixel</b>'
CLASSES = ["cat", HOSTILE]


def _answer(name: str, right: bool, confidence: float, *, domain: str = TARGET) -> LabelledPrediction:
    predicted = "cat" if right else HOSTILE
    return LabelledPrediction(f"{name}.png", domain, domain != TARGET, "cat", predicted, confidence)


ANSWERS = [
    _answer("a", True, 0.9, domain="line"),
    _answer("b", True, 0.8, domain="solid"),
    _answer("c", False, 0.99),
    _answer("d", False, 0.55),
    _answer("e", True, 0.7),
]
PICTURE = "data:image/jpeg;base64,AAAA"


TEACHER = MODEL.model_copy(update={"id": "icon-clip"})
CHECK = {
    "accuracy": 0.9,
    "by_domain": {},
    "gap": 0.2,
    "trusted": True,
    "learnt_from": True,
    "doubtful": [],
    "named_by_images": [],
    "accuracy_by_names": 0.9,
}


def _summary(**changes: Any) -> Summary:
    summary = {
        "method": "vl2v-adip",
        "student": "tf_efficientnet_lite0",
        "image_size": 64,
        "target_domain": TARGET,
        "seed": 0,
        "steps": 200,
        "images_per_domain": 16,
        "steps_kept": [150, 150],
        "accuracy": {
            "in_domain": 0.8125,
            "out_of_domain": 0.437,
            "by_domain": {"line": 0.8, "solid": 0.825, TARGET: 0.437},
            "images_by_domain": {"line": 80, "solid": 90, TARGET: 238},
            "worst_domain": TARGET,
        },
        "calibration_error": {"in_domain": 0.031, "out_of_domain": 0.222},
        "teacher_zero_shot": {"line": {"accuracy": 0.891, "images": 325, "on_test_set": False}},
        "size": {"parameters": 3_700_000, "weights_mib": 14.1},
        "speed": {"device": "cpu", "milliseconds": 6.25, "images_per_second": 310.0, "onnx": None},
        "teacher_queries_per_second": 250.0,
        "teacher_check": CHECK,
        "leave_one_out": {},
        "unlabelled_images": 0,
        "adapted": False,
        "weights_known": True,
        "queries_bought": 1300,
        "queries_cached": 52,
        "cost_micros": 126_040,
        "teacher": TEACHER,
        "train_images": 1300,
        "holdout_images": 320,
        "skipped_images": 1,
        "left_out": {},
        "seconds": {"align": 10.0, "distill": 95.21},
    }
    return Summary.model_validate({**summary, **changes})


PURCHASE: dict[str, Any] = {
    "prompts": 52,
    "images": 1300,
    "duplicates": 0,
    "cached": 52,
    "to_buy": 1300,
    "unaffordable": 0,
    "cost_micros": 126_040,
    "budget_left": None,
    "to_buy_by_domain_and_class": {},
    "tranches": [],
}


def _plan(**changes: Any) -> Plan:
    plan = {
        "method": "vl2v-adip",
        "target_domain": TARGET,
        "source_domains": ["line", "solid"],
        "classes": CLASSES,
        "wording": {"templates": ["a photo of a {}"], "words": {}, "prompts": {}},
        "train_images": 1300,
        "holdout_images": 320,
        "images_by_domain": {"line": 810, "solid": 810},
        "unlabelled_images": 0,
        "unseen_images": 0,
        "steps": 200,
        "left_out": {},
        "skipped": [],
        "model": TEACHER,
        "purchase": PURCHASE,
    }
    return Plan.model_validate({**plan, **changes})


DATA = "/data/<i>icons</i>"
RECIPE = replace(Recipe(), weigh_teacher=False)
METRICS = [
    {
        "stage": "distill",
        "step": step,
        "loss": -0.8,
        "holdout_domain_mean_accuracy": step / 250,
        "holdout_domain_mean_loss": 200 / step,
    }
    for step in (50, 100, 150, 200)
]


def _run(**changes: Any) -> ReportData:
    mistakes = [Mistake(ANSWERS[2], PICTURE), Mistake(ANSWERS[3], None)]
    return ReportData(_summary(**changes), _plan(), DATA, RECIPE, METRICS, ANSWERS, mistakes)


def _shown(capsys: pytest.CaptureFixture[str], run: ReportData) -> str:
    """What a terminal shows of a run that has finished."""
    files = {"report": "report", "weights": "weights"}
    print_summary(cast("Run", SimpleNamespace(summary=run.summary, plan=run.plan, **files)))
    return " ".join(capsys.readouterr().out.split())


class _Page(HTMLParser):
    """Checks that elements nest, and gathers what a reader sees and where a browser would go."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.links: list[str] = []
        self.words = ""
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href") and tag != "link"]
        if tag not in ("meta", "img", "br", "link", "input"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, _: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] not in (["style"], ["script"]):
            self.words += f"{data} "


@pytest.mark.parametrize(
    ("domains", "said"),
    [(("line", "solid"), ", averaged over domains"), (("line",), "")],
)
@pytest.mark.parametrize("target", [TARGET, None])
def test_a_mean_over_domains_is_told_as_one(domains: tuple[str, ...], said: str, target: str | None) -> None:
    accuracy = {
        "in_domain": 0.8,
        "out_of_domain": None if target is None else 0.437,
        "by_domain": {**dict.fromkeys(domains, 0.8), **({} if target is None else {target: 0.437})},
        "images_by_domain": {**dict.fromkeys(domains, 160), **({} if target is None else {target: 238})},
        "worst_domain": "line",
    }
    run = replace(_run(target_domain=target, accuracy=accuracy), plan=_plan(target_domain=target))
    page = render_report(run)
    assert ("averaged over domains" in page) == (len(domains) > 1)
    assert "right on held-out images of the domains it learnt from</div>" in page
    assert f"320 images{said}{'; guessing: 50.0%' if target is None else ''}</p>" in page


def test_the_report_shows_what_a_reader_asks() -> None:
    words = " ".join(_Page(render_report(_run())).words.split())
    for shown in (
        "43.7%", "81.2%",  # accuracy
        "1,300 queries for 0.1260 units", "640,128 queries for 2 source domains",  # asked and spent
        "89.1%", "at most 408 further queries (0.0408 units)",  # the teacher beside the student
        "6.2 ms", "310 a second", "250 a second", "54 minutes", "100 units",  # size and latency
        "85.0% sure on average, 100.0% right", "74.7% sure on average, 33.3% right",  # calibration
        f"{HOSTILE} (2)",  # who was taken for whom, and how often
        "(99%)", "image gone",  # mistakes
        "fp_1",
    ):  # fmt: skip
        assert shown in words, shown


@pytest.mark.parametrize(
    ("images", "domains", "said"),
    [(16, ["line", "solid"], "200 steps of 16 images a domain"), (32, [], "200 steps of 32 images")],
)
def test_a_batch_is_told_as_it_was_trained_with(images: int, domains: list[str], said: str) -> None:
    run = replace(_run(images_per_domain=images), plan=_plan(source_domains=domains))
    assert f"seed 0, {said}</dd>" in render_report(run)


def _with_tranches(run: ReportData, **tranches: tuple[int, int]) -> ReportData:
    """A run whose plan names kinds of spending, each with what is cached and what would be bought."""
    kinds = [
        {
            "name": name,
            "queries": 9000,
            "cached": cached,
            "to_buy": to_buy,
            "unaffordable": 7,
            "cost_micros": 0,
        }
        for name, (cached, to_buy) in {"texts": (52, 0), **tranches}.items()
    ]
    return replace(run, plan=_plan(purchase={**PURCHASE, "tranches": kinds}))


def test_no_more_is_said_to_be_asked_about_than_was_bought_or_cached() -> None:
    for run, said in (
        (
            _with_tranches(_run(), labelled=(100, 348), unlabelled=(0, 21)),
            "448 training images, 21 images without labels;",
        ),
        (_with_tranches(_run(), labelled=(0, 8)), "8 training images;"),
    ):
        assert said in " ".join(_Page(render_report(run)).words.split())


@pytest.mark.parametrize(
    ("learnt_from", "said"),
    [
        (True, "27 images without labels;"),
        (False, "7 images without labels;"),
    ],
)
def test_of_a_teacher_that_teaches_nothing_no_more_was_asked_than_the_labelled_images(
    learnt_from: bool, said: str
) -> None:
    """What is cached was asked before. Of the images without labels, some answers may not be learnt from."""
    run = _run(teacher_check={**CHECK, "learnt_from": learnt_from}, unlabelled_images=4)
    page = render_report(_with_tranches(run, labelled=(0, 8), unlabelled=(7, 20)))
    assert f"8 training images, {said}" in " ".join(_Page(page).words.split())


_DOUBTED = {**CHECK, "accuracy": 0.5, "trusted": False, "doubtful": [HOSTILE], "accuracy_by_names": 0.5}


@pytest.mark.parametrize(
    ("changes", "taught", "said"),
    [
        ({"learnt_from": False}, "labels alone", "too little. The student learns from your labels alone"),
        ({}, "icon-clip", "too few images of"),
        ({"trusted": True, "doubtful": []}, "icon-clip", None),
    ],
)
def test_both_pages_say_what_the_labels_say_against_the_teacher(
    changes: dict[str, Any], taught: str, said: str | None
) -> None:
    run = replace(_run(teacher_check={**_DOUBTED, **changes}), recipe=replace(RECIPE, weigh_teacher=True))
    page, card = render_report(run), render_model_card(run)
    assert f"A student for 2 classes, taught by {taught}</h1>" in page
    for each in (page, card):
        assert HOSTILE not in each
        assert ("of your labelled images right" in each) == (said is not None)
        assert (said or "") in each
    assert "of your labelled images right" not in render_report(replace(run, recipe=RECIPE))


@pytest.mark.parametrize(
    ("method", "teacher"),
    [("unlimited", "the bundled icon-clip"), ("vl2v-sd+swad", "its own frozen twin"), ("label-only", None)],
)
def test_a_teacher_that_is_not_the_vendors_is_named(method: str, teacher: str | None) -> None:
    run = _run(method=method, teacher=None, teacher_zero_shot={}, teacher_queries_per_second=None)
    page, card = " ".join(_Page(render_report(run)).words.split()), render_model_card(run)
    for words, has_none in ((page, "without a teacher"), (page, "has no teacher"), (card, "No teacher")):
        assert (has_none in words) == (teacher is None)
    if teacher is not None:
        assert f"taught by {teacher}" in page
        assert f"asks {teacher} about every view" in page
        assert f"Teacher {teacher}, asked about every view" in page
        assert f"- Teacher: {teacher}, asked about every view; no queries.\n" in card


@pytest.mark.parametrize("held_out_whole", [True, False])
def test_a_domain_that_is_held_out_whole_is_said_to_have_taught_nothing(
    capsys: pytest.CaptureFixture[str], held_out_whole: bool
) -> None:
    run = replace(_run(), plan=_plan(images_by_domain={"line": 810, "solid": 90 if held_out_whole else 810}))
    page = " ".join(_Page(render_report(run)).words.split())
    assert ("what it does with images like those it learnt from" in page) == (not held_out_whole)
    assert ("right on held-out images of the domains it learnt from" in page) == (not held_out_whole)
    accuracy = {
        "in_domain": 0.8125,
        "out_of_domain": None,
        "by_domain": {"line": 0.8, "solid": 0.825},
        "images_by_domain": {"line": 80, "solid": 90},
        "worst_domain": "line",
    }
    without_target = replace(run, summary=_summary(target_domain=None, accuracy=accuracy))
    page = " ".join(_Page(render_report(without_target)).words.split())
    for each in (page, _shown(capsys, without_target)):
        assert ("All images of solid are held out" in each) == held_out_whole
        assert ("No domain was held out" in each) == (not held_out_whole)
    for page in (render_report(run), render_model_card(run)):
        assert ("No image of solid was trained on," in page) == held_out_whole
        assert "No image of line" not in page


@pytest.mark.parametrize("adapted", [True, False])
def test_of_a_domain_that_it_was_adapted_to_images_were_asked_about(adapted: bool) -> None:
    words = _Page(render_report(_run(target_domain="line", adapted=adapted, unlabelled_images=9))).words
    assert ("no image of line, and none that was held out" in words) == (not adapted)
    assert ("no image that was held out" in words) == adapted


@pytest.mark.parametrize("domains", [["line"], []])
def test_without_source_domains_there_is_nothing_that_the_paper_would_ask(domains: list[str]) -> None:
    page = render_report(replace(_run(), plan=_plan(source_domains=domains)))
    assert ("Instead of" in page) == bool(domains)


@pytest.mark.parametrize(
    ("data", "target", "recipe", "queries"),
    [
        ("/data/icons", "real", RECIPE, "1,600,320 queries for 5"),
        ("/data/icons", "real", RECIPES["paper"], "1,600,320 queries for 5"),
        ("/data/icons", "real", RECIPES["paper-domainnet"], "4,800,320 queries for 5"),
        ("/data/DomainNet", "real", RECIPE, "4,800,320 queries for 5"),
        ("/data/icons", "sketch", RECIPE, "4,800,320 queries for 5"),  # these are DomainNet's domains
    ],
)
def test_over_domainnet_the_papers_code_asks_three_times_as_often(
    data: str, target: str, recipe: Recipe, queries: str
) -> None:
    """It takes 15,001 steps a stage there, and 5,001 elsewhere."""
    sources = ["clipart", "infograph", "painting", "quickdraw", "real" if target == "sketch" else "other"]
    plan = _plan(source_domains=sources, target_domain=target)
    assert queries in render_report(replace(_run(), plan=plan, data=data, recipe=recipe))


@pytest.mark.parametrize(("adapted", "title"), [(True, "adapted to line"), (False, "line unseen")])
def test_the_title_says_whether_the_domain_was_unseen(adapted: bool, title: str) -> None:
    page = render_report(_run(target_domain="line", adapted=adapted))
    assert f"<title>vl2v-adip: {title}</title>" in page


@pytest.mark.parametrize("held_out", [True, False])
@pytest.mark.parametrize(
    ("target", "measured", "not_measured"),
    [
        ("pixel", "with images like those it learnt from, and with pixel.", "what it does with pixel."),
        (
            "pixel",
            "a temperature, fitted on the held-out images.",
            "Its confidence was not calibrated, because",
        ),
        (None, "its accuracy is that on held-out images", "its accuracy was not measured"),
    ],
)
def test_without_hold_outs_no_accuracy_on_them_and_no_calibration_is_claimed(
    target: str | None, measured: str, not_measured: str, held_out: bool
) -> None:
    """A table may have its rows trained on, all of them; and a class of one image has no hold-out."""
    by_domain = ({"line": 0.8} if held_out else {}) | ({target: 0.437} if target else {})
    accuracy = {
        "in_domain": by_domain.get("line"),
        "out_of_domain": by_domain.get("pixel"),
        "by_domain": by_domain,
        "images_by_domain": dict.fromkeys(by_domain, 80),
        "worst_domain": min(by_domain, default=None),
    }
    run = _run(target_domain=target, accuracy=accuracy, holdout_images=80 if held_out else 0)
    answers = [each for each in ANSWERS if (held_out if each.seen else target)]
    words = " ".join(_Page(render_report(replace(run, predictions=answers))).words.split())
    assert (measured in words, not_measured in words) == (held_out, not held_out)


@pytest.mark.parametrize("taught", [True, False])
@pytest.mark.parametrize(
    ("target", "learnt_from_labels", "held_out_whole"),
    [
        (None, "No domain was held out: its accuracy is", "its accuracy is that on those that were held out"),
        ("pixel", "with images like those it learnt from, and", "with the labelled images that were held"),
    ],
)
def test_where_a_table_holds_all_labelled_images_out_the_accuracy_is_that_on_these(
    capsys: pytest.CaptureFixture[str],
    target: str | None,
    learnt_from_labels: str,
    held_out_whole: str,
    taught: bool,
) -> None:
    of_target = {} if target is None else {target: 0.437}
    accuracy = {
        "in_domain": 0.8,
        "out_of_domain": of_target.get("pixel"),
        "by_domain": {"line": 0.8, **of_target},
        "images_by_domain": dict.fromkeys(("line", *of_target), 320),
        "worst_domain": "line",
    }
    run = _run(
        target_domain=target, accuracy=accuracy, train_images=1300 if taught else 0, unlabelled_images=9
    )
    words = " ".join(_Page(render_report(run)).words.split())
    assert (learnt_from_labels in words, held_out_whole in words) == (taught, not taught)
    assert ("right on held-out images of the domains it learnt from" in words) == taught
    assert "could not be measured" not in words
    shown = _shown(capsys, run)
    assert ("No labelled image was trained on: this is the" in shown) == (not taught and target is None)
    assert ("on images like those it learnt from" in shown) == (taught and target is None)


@pytest.mark.parametrize("target", [TARGET, None])
def test_where_nobody_knows_what_the_weights_had_seen_nothing_is_called_unseen(target: str | None) -> None:
    run = _run(weights_known=False, target_domain=target)
    for page in (render_report(run), render_model_card(run)):
        assert "It cannot be told which images" in page
        for claim in ("never", "unseen domain", "unseen (", ", unseen", "Out-of-domain", "unseen</title>"):
            assert claim not in page
    known = _run(target_domain=target)
    assert "cannot be told" not in render_report(known) + render_model_card(known)


def test_money_is_in_the_currency_that_the_vendor_has_named() -> None:
    run = _run(teacher=TEACHER.model_copy(update={"currency": "EUR"}))
    words = " ".join(_Page(render_report(run)).words.split())
    for shown in ("1,300 queries for 0.1260 EUR", "408 further queries (0.0408 EUR)", "100 EUR"):
        assert shown in words, shown
    assert "unit" not in words
    assert "bought for 0.1260 EUR" in render_model_card(run)


def test_the_page_needs_nothing_from_elsewhere_and_names_stay_names() -> None:
    page = _Page(render_report(_run()))
    assert page.links == [PICTURE]
    assert not {"iframe", "object"} & set(page.tags)
    assert re.findall(r"<(?:script|link)[^>]*?(?:src|href)=.(.{15})", render_report(_run())) == [
        "data:image/svg+x"[:15]
    ]
    assert "/data" not in page.words  # a page is shared
    assert HOSTILE in page.words
    raw = render_report(_run())
    assert HOSTILE not in raw
    assert TARGET not in raw
    assert "<i>icons" not in raw


def test_training_is_drawn_with_what_was_kept() -> None:
    page = render_report(_run())
    assert page.count('class="curve"') == 3
    assert page.count('class="dot"') == 3
    assert 'class="window"' not in page
    averaged = render_report(_run(steps_kept=[101, 200]))
    assert averaged.count('class="window"') == 3
    assert "steps 101 to 200" in averaged


def test_the_teachers_answers_about_the_target_are_shown_where_they_were_bought() -> None:
    known = {TARGET: {"accuracy": 0.697, "images": 238, "on_test_set": True}}
    words = _Page(render_report(_run(teacher_zero_shot=known))).words
    assert "69.7%" in words
    assert f"Nothing was trained on its answers about {TARGET}." in words
    assert "further queries" not in words


@pytest.mark.parametrize(
    ("method", "known", "price"),
    [
        ("vl2v-adip", {"line": False}, "408 further queries (0.0408 units)"),
        ("vl2v-adip", {"line": True}, "328 further queries (0.0328 units)"),  # its 80 hold-outs were asked
        ("rise", {}, "410 further queries (0.0408 units)"),  # two class texts besides, at 20 millionths
    ],
)
def test_the_price_of_asking_about_the_target_is_that_of_the_command_beside_it(
    method: str, known: dict[str, bool], price: str
) -> None:
    """It asks about 80 and 90 hold-outs too, and would ask about each domain in turn for three seeds."""
    answers = {name: {"accuracy": 0.9, "images": 80, "on_test_set": tested} for name, tested in known.items()}
    prompts = list(METHODS[method].prompts.templates)
    plan = _plan(wording={"templates": prompts, "words": {}, "prompts": {}})
    page = _Page(render_report(replace(_run(method=method, teacher_zero_shot=answers), plan=plan)))
    words = " ".join(page.words.split())
    assert f"at most {price}" in words
    options = f"--methods zero-shot --target-domain '{TARGET}' --seeds 1 --out table"
    assert (
        f"client compare --data '<i>icons</i>' {options}" in words
        or f"client compare --data 'i>' {options}" in words
    )


def _at(page: str, place: int) -> list[str]:
    """What stands in the page where its slider is at a place."""
    return [json.loads(html.unescape(each))[place] for each in re.findall(r"data-at='([^']*)'", page)]


def test_what_asking_would_bring_is_told_at_each_place_of_a_slider() -> None:
    page = render_report(_run())
    assert page.count('class="curve seen"') == page.count('class="curve unseen"') == 1
    share, *found = _at(page, 0)
    assert (share, found[0], found[-1]) == ("0%", "100.0%", "nothing")
    assert "33.3%" in found
    # Of three answers about the target, one of them right, a fifth is asked about: three fifths of the least
    # sure one, which is wrong. The teacher is right about 90%.
    found = _at(page, 4)
    assert f"{100 * (0.6 * 0.9 + 1) / 3:.1f}%" in found
    assert found[-1] == "0.0200 units"  # of 200 of a thousand images
    assert found[0] == "20%"
    assert _at(page, 20)[-1] == "0.1000 units"
    assert "asked when it is unsure" not in render_report(_run(teacher_check=None, teacher_zero_shot={}))


@pytest.mark.parametrize(
    ("asked_about", "named", "supposed"),
    [(TARGET, [], False), (TARGET, [HOSTILE], False), ("line", [], True), ("line", [HOSTILE], True)],
)
def test_what_asking_would_bring_in_an_unseen_domain_is_a_supposition_unless_the_teacher_is_known_there(
    asked_about: str, named: list[str], supposed: bool
) -> None:
    run = replace(
        _run(
            teacher_check={**CHECK, "named_by_images": named, "accuracy_by_names": 0.93},
            teacher_zero_shot={asked_about: {"accuracy": 0.4, "images": 238, "on_test_set": True}},
        ),
        recipe=replace(RECIPE, weigh_teacher=True),
    )
    words = " ".join(_Page(render_report(run)).words.split())
    supposition = "it is taken to be as right as about the training images of other domains (93.0%)"
    assert words.count(supposition) == supposed


@pytest.mark.parametrize(("named", "weighs"), [([HOSTILE], True), ([HOSTILE], False), ([], True)])
def test_what_asking_would_bring_goes_by_the_names_that_the_teacher_is_asked_by(
    named: list[str], weighs: bool
) -> None:
    """Right by the texts about half of the labelled images, by names about 80%, and 40% of the target."""
    by_names = 0.8 if named and weighs else 0.5
    run = replace(
        _run(
            teacher_check={**_DOUBTED, "named_by_images": named, "accuracy_by_names": by_names},
            teacher_zero_shot={TARGET: {"accuracy": 0.4, "images": 238, "on_test_set": True}},
        ),
        recipe=replace(RECIPE, weigh_teacher=weighs),
    )
    found = _at(render_report(run), 4)
    # A fifth of the two known answers is two fifths of one, and of the three unknown ones three fifths.
    assert f"{100 * (0.4 * by_names + 1.6) / 2:.1f}%" in found
    assert f"{100 * (0.6 * 0.4 + 1) / 3:.1f}%" in found


def test_the_pages_say_in_which_words_and_by_which_images_classes_were_asked_for() -> None:
    wording = {"templates": ["a {}", "the {}"], "words": {"cat": "kitten"}, "prompts": {HOSTILE: ["x"]}}
    run = _run(teacher_check={**CHECK, "named_by_images": [HOSTILE]})
    run = replace(run, plan=_plan(wording=wording), recipe=replace(RECIPE, weigh_teacher=True))
    asked = "the mean of “a {class}”, “the {class}”; with other words for 1 classes than their folders'; 1 "
    words = " ".join(_Page(render_report(run)).words.split())
    assert words.count(asked) == 2
    assert "1 classes are named by the mean of their images instead" in words
    assert "the mean of “a {class}”, “the {class}”" in render_model_card(run)


def test_a_teacher_in_this_process_is_no_vendors() -> None:
    own = TEACHER.model_copy(update={"owned_by": "open_clip"})
    page, sold = (_Page(render_report(_run(teacher=each))).words for each in (own, TEACHER))
    for words in ("at the vendor's", "over the network", "not disclosed"):
        assert words in sold
        assert words not in page
    assert f"{own.id}, in this process" in page


def test_images_that_the_teacher_doubts_and_what_a_mistake_resembles_are_shown() -> None:
    other = PICTURE.replace("AAAA", "BBBB")
    doubted = Disagreement(image=f"{HOSTILE}.png", domain="line", label="cat", teacher=HOSTILE, lead=0.2)
    like = Neighbour(image="n.png", label=HOSTILE, cosine=0.9)
    review = Review(compared=1300, disagree=26, disagreements=[doubted], neighbours={"c.png": like})
    run = replace(
        _run(),
        review=review,
        doubted=[Pictured(doubted, None)],
        mistakes=[Mistake(ANSWERS[2], PICTURE, Pictured(like, other))],
    )
    page = render_report(run)
    words = " ".join(_Page(page).words.split())
    assert "Of 1,300 training images that it was asked about, the teacher puts 26 in another class" in words
    assert "these are the 1 clearest" in words
    assert f"teacher: {HOSTILE}" in words
    assert f"resembles this {HOSTILE}" in words
    assert _Page(page).links == [PICTURE, other]
    assert HOSTILE not in page
    assert "disagree" not in render_report(_run())


def test_a_method_without_a_teacher_has_none_in_its_pages() -> None:
    run = _run(
        teacher=None, queries_bought=0, cost_micros=0, teacher_zero_shot={}, teacher_queries_per_second=None
    )
    assert "No teacher, no queries" in render_model_card(run)
    words = _Page(render_report(run)).words
    assert "fingerprint" not in words
    assert "has no teacher" in words


def test_the_model_card_shows_the_numbers() -> None:
    card = render_model_card(_run(steps_kept=[101, 200], train_images=1299))
    for shown in (
        "| line | 80.0 | 80 | held-out images | 89.1 (85.2 to 92.0) (training images) |",
        "never seen in training | not asked |",
        "1300 queries bought for 0.1260 units, 52 more from the cache.",
        "Trained on 1299 images; 320 held out for selection; 1 files skipped",
        "steps 101 to 200",
        "3.1 points in-domain, 22.2 on",
    ):
        assert shown in card


@pytest.mark.parametrize(
    ("train", "unlabelled", "words"),
    [
        (0, 500, "500 images without labels"),
        (1299, 500, "1299 images and 500 images without labels"),
        (1299, 0, "1299 images"),
        (0, 0, "0 images"),
    ],
)
def test_the_model_card_names_all_that_was_trained_on(train: int, unlabelled: int, words: str) -> None:
    card = render_model_card(_run(train_images=train, unlabelled_images=unlabelled))
    assert f"- Trained on {words}; 320 held out for selection" in card


def test_weights_of_one_step_that_are_an_average_are_not_the_best_ones() -> None:
    run = replace(_run(), recipe=replace(RECIPE, selection="swad"))
    for page in (render_report(run), render_model_card(run)):
        assert "the weights after step 150, the only ones that SWAD averages, are the student" in page
        assert "best on the hold-outs" not in page


def test_the_model_card_says_what_to_expect_of_a_new_domain_and_the_worst() -> None:
    card = render_model_card(_run(target_domain=None, leave_one_out={"line": 0.6, "solid": 0.5}))
    assert "To expect of a new domain: 55.0%" in card
    assert "the worst, solid, 50.0%" in card


def test_names_stay_names_in_the_model_card() -> None:
    card = render_model_card(_run(student="open_clip:a`b"))
    assert HOSTILE not in card
    assert TARGET not in card
    assert r'"\>\<b\>pixel\</b\>' in card
    assert "``` open_clip:a`b ```".replace("```", "``") in card
    hostile = "a | b *c* [d](www.e.f) \n# g http://h"
    accuracy = _summary().accuracy.model_copy(update={"worst_domain": hostile})
    card = render_model_card(_run(accuracy=accuracy))
    assert r"Worst domain: a \| b \*c\* \[d\](www\.e.f) \\n\# g http\://h." in card


@pytest.mark.parametrize("name", ["=1+1", "+1+1", "-1+1", "@sum", "\tx", "\rx", "'=1", "''=1", "\uff1d1"])
def test_a_name_that_a_spreadsheet_would_run_is_quoted_and_read_back(tmp_path: Path, name: str) -> None:
    answers = [LabelledPrediction(name, name, True, name, name, 0.5)]
    (row,) = list(csv.reader(StringIO(predictions_as_csv(answers), newline="")))[1:]
    assert row == [f"'{name}", f"'{name}", "1", f"'{name}", f"'{name}", "0.5"]
    (tmp_path / "answers.csv").write_text(predictions_as_csv(answers), encoding="utf-8", newline="")
    assert read_predictions(tmp_path / "answers.csv") == answers


def test_answers_survive_their_file(tmp_path: Path) -> None:
    odd = [
        *ANSWERS,
        LabelledPrediction('a,"b"\nc.png', "line", True, "é", "cat", 0.123456),
        LabelledPrediction("'a'.png", "-0.5", True, "a=b", "'", 1e-6),
    ]
    (tmp_path / "answers.csv").write_text(predictions_as_csv(odd), encoding="utf-8")
    assert "-0.5," in predictions_as_csv(odd)
    assert read_predictions(tmp_path / "answers.csv") == odd


def test_mistakes_are_ordered_and_counted() -> None:
    assert [a.image for a in worst_mistakes(ANSWERS, 1)] == ["c.png"]
    assert confusion(ANSWERS, CLASSES) == [[3, 2], [0, 0]]


@pytest.mark.parametrize("classes", [2, 61])
def test_a_matrix_is_drawn_unless_there_are_too_many_classes(classes: int) -> None:
    names = [*CLASSES, *(f"class {n}" for n in range(2, classes))]
    page = render_report(replace(_run(), plan=_plan(classes=names), mistakes=[]))
    assert ('class="outline"' in page) == (classes == 2)
    assert "confident mistakes" not in page


@pytest.mark.parametrize(
    ("changes", "weights"),
    [
        ({}, "the weights after step 150, best on the hold-outs by the mean over source domains, are"),
        ({"holdout_images": 0}, "the weights after the last step, 150, are"),
        ({"steps_kept": [101, 200]}, "the mean of the weights after steps 101 to 200 (SWAD) is"),
    ],
)
def test_pages_say_which_weights_are_the_students(changes: dict[str, Any], weights: str) -> None:
    run = _run(**changes)
    for page in (render_report(run), render_model_card(run)):
        assert f"{weights} the student." in page
