"""What a run's targets take from a real vendor with small limits, and what is said of what is missing."""

import json
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console

from client.cache.cache import EmbeddingCache
from client.cache.notes import Batch, Payer
from client.cache.receipts import Paid
from client.data.wording import Sentences, Wording, class_prompts
from client.errors import AnswerRejected, BudgetExhausted, DataError, FingerprintChanged, UsageError
from client.learning.methods import METHODS
from client.learning.recipe import Recipe
from client.learning.rejection import Rejection
from client.learning.temperature import fitted_temperature
from client.options.vendor import VendorOptions
from client.progress import Display
from client.purchase.buyer import Bulk, Buyer
from client.purchase.checkout import Order
from client.purchase.jobs import Jobs
from client.purchase.vendor_check import CANARIES
from client.results.intervals import coin_tosses
from client.results.records import described_trial
from client.runs import supervision, targets
from client.runs import teacher_queries as asked_queries
from client.runs.connection import Connection
from client.runs.dataset import read_dataset
from client.runs.folder import RunFolder
from client.runs.forecast import probe
from client.runs.freshness import student_stamp
from client.runs.joint_purchase import Asked, JointPurchase
from client.runs.prompt_trial import COMMON_TEMPLATES, prompt_trial
from client.runs.target_builder import TargetBuilder
from client.runs.targets import Targets
from client.runs.teacher_queries import query_of, teacher_queries
from client.vendors.query import Query
from client.vendors.teachers.tuition import VendorClient
from shared.kinds import Usage
from tests.client.toy import make_folder, run_config
from tests.vendor_service.local_vendor import LocalVendor


@pytest.fixture(scope="module")
def vendor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalVendor]:
    folder = tmp_path_factory.mktemp("vendor")
    with LocalVendor(
        folder,
        max_image_bytes=10_000,
        max_image_pixels=10_000,
        max_text_characters=33,
        batch_store=str(folder / "store"),
    ) as local:
        yield local


@dataclass
class Pupil:
    """Makes targets of the toy pictures in its folder, one run after the other from one cache."""

    folder: Path
    client: VendorClient
    cache: EmbeddingCache

    def __post_init__(self) -> None:
        self.data = make_folder(self.folder / "toy", images=5)
        self.config = run_config(self.data, method="vl2v-adip")
        self.shown = StringIO()
        self.agreed: list[int] = []

    def learn(
        self,
        run: str,
        *,
        budget: int,
        max_spend: int | None = None,
        method_name: str = "vl2v-adip",
        batch: bool = False,
    ) -> Targets:
        """What the run learns; it may be a run that has learnt before."""
        config, method = self.config.changed(method=method_name), METHODS[method_name]
        folder = RunFolder(self.folder / run)
        run_id, model = folder.begin(config), self.client.model()
        bulk = Bulk(buys=batch)
        teacher = Buyer(
            self.client,
            self.cache,
            model=model,
            run_id=run_id,
            budget=budget,
            max_spend_micros=max_spend,
            bulk=bulk,
        )
        display = Display(Console(file=self.shown))
        self.builder = TargetBuilder(config, method, folder, teacher, display)
        self.dataset = read_dataset(config, display)
        return self.builder.build(self.dataset, self.agreed.append)

    def pool(self) -> tuple[str]:
        """A folder of one image without a label."""
        folder = self.folder / "pool"
        folder.mkdir()
        noise = np.random.default_rng(0).integers(0, 256, (5, 5, 3), dtype=np.uint8)
        Image.fromarray(noise).resize((40, 40)).save(folder / "a.png")
        return (str(folder),)

    def read(self, file: str) -> Any:
        """A JSON file of a run."""
        return json.loads((self.folder / file).read_text())

    def rename(self, name: str, to: str) -> None:
        """Rename a class in every domain."""
        for folder in self.data.glob(f"*/{name}"):
            folder.rename(folder.with_name(to))


@pytest.fixture
def pupil(vendor: LocalVendor, tmp_path: Path) -> Iterator[Pupil]:
    with ExitStack() as stack:
        client = stack.enter_context(VendorClient(f"http://127.0.0.1:{vendor.port}", vendor.key()))
        yield Pupil(tmp_path, client, stack.enter_context(EmbeddingCache(tmp_path / "cache.db")))


def test_what_was_refused_is_told_from_what_could_not_be_paid_for(pupil: Pupil) -> None:
    dataset = read_dataset(pupil.config, Display.of_nobody())
    large = dataset.examples[dataset.train[0]].path
    large.write_bytes(large.read_bytes() + bytes(10_000))
    said = " of 24 training images have no teacher embedding "
    pupil.learn("run", budget=3)
    assert f"24{said}(the budget ended)" in pupil.shown.getvalue()
    pupil.learn("run", budget=10)
    assert f"17{said}(the vendor refused 1, and the budget ended before the others)" in pupil.shown.getvalue()
    pupil.learn("run", budget=100)
    assert f"1{said}(the vendor refused them)" in pupil.shown.getvalue()
    assert [each["name"] for each in pupil.read("run/purchase.json")["refused"]] == [str(large)]


@pytest.mark.parametrize(("spare", "batch"), [(-2, False), (2, False), (2, True)])
def test_an_image_that_is_refused_makes_room_for_the_next(pupil: Pupil, spare: int, batch: bool) -> None:
    """Many labelled images are refused, and one without a label comes after them."""
    pupil.config = pupil.config.changed(unlabelled=pupil.pool())
    large = {str(path) for path in pupil.data.glob("*/*/0[0-2].png")}
    for path in large:
        Image.open(path).resize((101, 100)).save(path)
    asked = teacher_queries(pupil.config, read_dataset(pupil.config, Display.of_nobody()))
    everything = sum(query.name not in large for query in asked.all)
    learnt = pupil.learn("run", budget=everything + spare, batch=batch)
    purchase = pupil.read("run/purchase.json")
    assert len(asked.all) - everything > 4
    assert purchase["queries_bought"] == everything + min(spare, 0)
    assert purchase["cost_micros"] <= pupil.agreed[0]
    assert (pupil.dataset.unlabelled[0] in learnt.train) == (spare > 0)
    assert (f"{spare} queries of the budget stay unspent" in pupil.shown.getvalue()) == (spare > 0)
    assert pupil.builder.recall(pupil.dataset) is not None
    pupil.learn("run", budget=everything + spare, batch=batch)
    assert pupil.read("run/purchase.json")["queries_bought"] == purchase["queries_bought"]


def test_what_a_run_need_not_pay_for_after_all_makes_it_no_dearer_than_was_agreed(
    pupil: Pupil, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another run buys the class texts and an image meanwhile: images cost more than texts."""
    buy, asked = Buyer.buy, teacher_queries(pupil.config, read_dataset(pupil.config, Display.of_nobody()))

    def after_another(teacher: Buyer, *queries: Any, **named: Any) -> Any:
        buy(teacher.for_run("another", budget=None), [*asked.prompts, asked.of("labelled").queries[0]])
        return buy(teacher, *queries, **named)

    monkeypatch.setattr(Buyer, "buy", after_another)
    pupil.learn("run", budget=10)
    purchase = pupil.read("run/purchase.json")
    assert (purchase["queries_bought"], purchase["queries_cached"]) == (7, 4)
    assert purchase["cost_micros"] == 7 * 100 <= pupil.agreed[0]


def test_what_is_told_of_the_teacher_is_fitted_on_its_cosines_of_the_labelled_images(pupil: Pupil) -> None:
    """Where a class is named by its images, each is compared with the name that the others make."""
    learnt = pupil.learn("run", budget=100)
    taught_by = learnt.teacher
    assert len(learnt.train) == 24
    dataset = read_dataset(pupil.config, Display.of_nobody())
    teacher = Buyer(pupil.client, pupil.cache, model=pupil.client.model(), run_id="again", budget=0)
    texts, _ = teacher.lookup([Query.text(prompt) for prompt in class_prompts(dataset.classes)])
    images, have = teacher.lookup([query_of(dataset.examples[position]) for position in dataset.train])
    assert have.sum() == 24
    assert taught_by is not None
    names = taught_by.names_of(classes=3, dimensions=texts.shape[1])
    assert names  # the demo model knows some of these shapes by their images alone
    labels = np.array([dataset.labels[position] for position in dataset.train])
    gap = texts.mean(axis=0) - np.mean([_unit(images[labels == k].sum(axis=0)) for k in range(3)], axis=0)
    for number, name in names.items():
        texts[number] = name
    cosines = images @ texts.T
    for row, own in enumerate(labels):
        if own in names:
            others = images[labels == own].sum(axis=0) - images[row]
            cosines[row, own] = images[row] @ _unit(_unit(others) + gap)
    domains = np.array([dataset.examples[position].domain for position in dataset.train])
    right = cosines.argmax(axis=1) == labels
    assert taught_by.teacher_accuracy == pytest.approx(
        np.mean([right[domains == k].mean() for k in set(domains)])
    )
    scores = 100 * torch.from_numpy(cosines)
    assert taught_by.teacher_temperature == fitted_temperature(scores, torch.from_numpy(labels))
    assert taught_by.teacher_rejection is not None
    thresholds = taught_by.teacher_rejection.thresholds
    expected = np.array(Rejection.of(cosines.max(axis=1)).thresholds, np.float64)
    assert np.allclose(np.array(thresholds, np.float64), expected, equal_nan=True, atol=2e-6)


def _unit(vector: NDArray[np.float32]) -> NDArray[np.float32]:
    unit: NDArray[np.float32] = vector / np.linalg.norm(vector)
    return unit


@pytest.mark.parametrize("method", ["vl2v-adip", "kd", "rise", "erm"])
def test_targets_are_the_same_whether_some_are_made_at_once_or_all(
    pupil: Pupil, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = pupil.learn(f"whole-{method}", budget=100, method_name=method)
    monkeypatch.setattr(targets, "ROWS_AT_ONCE", 5)
    monkeypatch.setattr(supervision, "ROWS_AT_ONCE", 3)
    pieces = pupil.learn(f"pieces-{method}", budget=100, method_name=method)
    assert torch.allclose(pieces.rows, whole.rows, equal_nan=True, atol=1e-6)
    assert pieces.rows.dtype == whole.rows.dtype
    assert pieces.train == whole.train
    assert pieces.content == whole.content
    assert np.allclose(_thresholds(pieces), _thresholds(whole), equal_nan=True, atol=1e-5)


@pytest.mark.parametrize(("method", "too_few"), [("vl2v-adip", 20), ("kd", 20), ("rise", 40)])
def test_what_targets_are_made_of_does_not_depend_on_how_they_are_rounded(
    pupil: Pupil, method: str, too_few: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = METHODS[method]
    few = pupil.learn("few", budget=too_few, method_name=method)
    learnt = pupil.learn("all", budget=100, method_name=method)
    monkeypatch.setitem(
        METHODS, method, replace(known, targets=lambda of: known.targets(of) * torch.tensor(1 + 1e-6))
    )
    monkeypatch.setattr(Sentences, "class_texts", _rounded(Sentences.class_texts))
    rounded = pupil.learn("rounded", budget=100, method_name=method)
    assert not torch.equal(rounded.rows, learnt.rows)
    assert rounded.content == learnt.content != few.content


def _rounded(class_texts: Callable[..., tuple[NDArray[np.float32], NDArray[np.float32]]]) -> Any:
    def rounded(*about: Any) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        text_head, styled = class_texts(*about)
        return text_head * np.float32(1 + 1e-6), styled

    return rounded


def _thresholds(learnt: Targets) -> NDArray[np.float64]:
    told = learnt.teacher.teacher_rejection if learnt.teacher else None
    return np.array(told.thresholds if told else (), np.float64)


@pytest.mark.parametrize(("confidence", "weight"), [(0.0, 1.0), (1e-6, 0.5)])
def test_the_teachers_sure_answers_stand_as_labels_where_there_are_none(
    pupil: Pupil, confidence: float, weight: float
) -> None:
    recipe = replace(Recipe(), pseudo_labels=confidence, weigh_teacher=False)
    pupil.config = pupil.config.changed(recipe=recipe, unlabelled=pupil.pool())
    learnt = pupil.learn("run", budget=100)
    (position,) = pupil.dataset.unlabelled
    teacher = Buyer(pupil.client, pupil.cache, model=pupil.client.model(), run_id="again", budget=0)
    image = torch.from_numpy(teacher.lookup([query_of(pupil.dataset.examples[position])])[0][0])
    assert learnt.text_head is not None
    text = learnt.text_head[(learnt.text_head @ image).argmax()]
    assert position in learnt.train
    assert torch.allclose(learnt.rows[position], weight * image + (1 - weight) * text, atol=1e-6)


@pytest.mark.parametrize(
    ("method", "recipe", "alone"),
    [
        ("vl2v-adip", Recipe(), True),
        ("image-only", Recipe(), False),
        ("vl2v-adip", replace(Recipe(), weigh_teacher=False), False),
    ],
)
def test_nothing_is_learnt_of_a_teacher_that_knows_less_than_enough_labels(
    pupil: Pupil, monkeypatch: pytest.MonkeyPatch, method: str, recipe: Recipe, alone: bool
) -> None:
    """Each image has the answer to another, there are 19 labelled ones a class, and one without."""
    lookup = Buyer.lookup

    def confused(teacher: Buyer, queries: Sequence[Query]) -> Any:
        if len(queries) > 1 and all(query.kind == "image" for query in queries):
            queries = random.Random(0).sample(queries, len(queries))
        return lookup(teacher, queries)

    monkeypatch.setattr(Buyer, "lookup", confused)
    data = make_folder(pupil.folder / "more", images=12)
    pupil.config = pupil.config.changed(data=str(data), recipe=recipe, unlabelled=pupil.pool())
    learnt = pupil.learn("run", budget=200, method_name=method)
    dataset, check = pupil.dataset, learnt.check
    assert learnt.text_head is not None
    assert check is not None
    assert check.learnt_from == (not alone)
    apart = torch.allclose(learnt.text_head @ learnt.text_head.T, torch.eye(3), atol=1e-5)
    assert apart == alone
    shown = " ".join(pupil.shown.getvalue().split())
    assert ("from your labels alone" in shown) == alone
    assert ("1 of 1 unlabelled images were not bought (nothing is learnt of this teacher)" in shown) == alone
    assert ("stay unspent" in shown) == (not alone)
    labels = torch.tensor([dataset.labels[position] for position in dataset.train])
    assert torch.allclose(learnt.rows[dataset.train], learnt.text_head[labels], atol=1e-6) == alone
    assert pupil.read("run/purchase.json")["queries_bought"] == 3 + len(dataset.train) + (not alone)
    recalled = pupil.builder.recall(dataset)
    assert recalled is not None
    assert torch.equal(recalled.rows[dataset.train], learnt.rows[dataset.train])


def test_nobody_is_asked_to_pay_for_what_is_known_not_to_be_bought(
    pupil: Pupil, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("client.runs.teacher_check.LEARNT_FROM", 1.1)
    pupil.learn("run", budget=3 + 24)
    pupil.config = pupil.config.changed(unlabelled=pupil.pool())
    pupil.learn("with a pool", budget=100)
    plan = pupil.read("with a pool/plan.json")["purchase"]
    assert (plan["cached"], plan["to_buy"], plan["cost_micros"]) == (3 + 24, 0, 0)
    assert pupil.agreed == [3 * 20 + 24 * 100, 0]
    assert "stay unspent" not in pupil.shown.getvalue()


def test_without_a_teacher_labels_have_directions_that_cost_nothing(pupil: Pupil) -> None:
    learnt = pupil.learn("run", budget=0, method_name="label-only")
    assert learnt.text_head is not None
    assert torch.allclose(learnt.text_head @ learnt.text_head.T, torch.eye(3), atol=1e-5)
    labels = [pupil.dataset.labels[position] for position in learnt.train]
    assert torch.equal(learnt.rows[learnt.train], learnt.text_head[labels])
    assert (learnt.outputs, learnt.teacher) == (512, None)
    assert pupil.read("run/plan.json")["purchase"] is None


def test_a_student_keeps_class_texts_that_are_not_those_of_the_usual_prompt(pupil: Pupil) -> None:
    learnt = pupil.learn("run", budget=200, method_name="rise")
    assert learnt.check is not None
    assert learnt.teacher is not None
    assert learnt.text_head is not None
    assert learnt.teacher.teacher_accuracy == learnt.check.accuracy_by_names
    names = learnt.teacher.names_of(*learnt.text_head.shape)
    assert torch.equal(torch.from_numpy(np.stack(list(names.values()))), learnt.text_head)


def test_a_class_prompt_that_was_refused_is_not_a_matter_of_the_budget(pupil: Pupil) -> None:
    pupil.rename("circle", "circle_of_a_long_name")
    with pytest.raises(DataError, match=r"'a photo of a circle of a long name' .*the class another name"):
        pupil.learn("run", budget=100)
    assert pupil.read("run/purchase.json")["queries_bought"] == 2  # the other prompts, and no image
    assert "Skipped" not in pupil.shown.getvalue()  # a prompt is no file


def test_other_prompts_are_other_targets_and_only_their_texts_are_paid_for(pupil: Pupil) -> None:
    usual = pupil.learn("run", budget=100)
    assert pupil.read("run/purchase.json")["queries_bought"] == 3 + 24
    pupil.config = pupil.config.changed(prompt=("a {} shape", "a photo of a {}"))
    other = pupil.learn("run", budget=100)
    assert pupil.read("run/purchase.json")["queries_bought"] == 3 + 24 + 3
    assert other.content != usual.content
    assert pupil.read("run/plan.json")["wording"]["templates"] == ["a {} shape", "a photo of a {}"]
    assert other.teacher is not None
    assert sorted(other.teacher.teacher_names or {}) == [0, 1, 2]
    (pupil.data / "names.csv").write_text("class,name\ntall_bar,stick\n")
    named = pupil.learn("run", budget=100)
    assert pupil.read("run/purchase.json")["queries_bought"] == 3 + 24 + 3 + 2
    assert student_stamp(pupil.config, pupil.dataset, named) != student_stamp(
        pupil.config, replace(pupil.dataset, wording=Wording(pupil.config.prompt)), named
    )


def test_the_prompts_that_are_tried_are_judged_by_labelled_images(pupil: Pupil) -> None:
    """The one that turns the names about is worse than the usual one; all of it is in the cache then."""
    prompts = pupil.folder / "prompts.csv"
    prompts.write_text("class,prompt\ncircle,a square\nsquare,a tall bar\ntall_bar,a circle\n")
    config = pupil.config.changed(prompt=("a {}", "{}"), prompts=prompts)
    dataset = read_dataset(config, Display.of_nobody())
    trial = prompt_trial(config, dataset)
    poor = Buyer(pupil.client, pupil.cache, model=pupil.client.model(), run_id="poor", budget=30)
    with pytest.raises(UsageError, match=r"takes 33 queries, 9 texts among them.*a --budget of at least 33"):
        trial.buy(poor, pupil.agreed.append)
    teacher = Buyer(pupil.client, pupil.cache, model=pupil.client.model(), run_id="trial", budget=33)
    tried = trial.buy(teacher, pupil.agreed.append)
    assert pupil.agreed == [9 * 20 + 24 * 100]
    assert (teacher.spending.queries, poor.spending.queries) == (33, 0)
    assert [each.accuracy for each in tried] == sorted((each.accuracy for each in tried), reverse=True)
    by_wording = {(*each.templates, each.prompts_of_classes): each for each in tried}
    usual = by_wording["a photo of a {}", 0]
    assert (usual.gained, usual.lost, len(tried)) == (0, 0, 5)
    turned = by_wording["a {}", "{}", 3]
    assert turned.accuracy < by_wording["a {}", 0].accuracy
    images = sum(each.images for each in usual.by_domain.values())
    assert round(images * (turned.accuracy - usual.accuracy)) == turned.gained - turned.lost
    assert ("prefer" in described_trial(tried)) == (coin_tosses(tried[0].gained, tried[0].lost) < 0.05)
    assert "No wording names more" in described_trial([usual])
    by_chance = usual.model_copy(update={"gained": 4, "lost": 1})
    assert "--prompt 'a photo of a {}' names 4 images right that" in described_trial([by_chance])
    common = prompt_trial(pupil.config, read_dataset(pupil.config, Display.of_nobody()))
    assert len(common.tried) == len(COMMON_TEMPLATES) + 1


def test_what_decides_is_bought_directly_and_the_rest_by_one_job(
    pupil: Pupil, monkeypatch: pytest.MonkeyPatch
) -> None:
    buy, jobs = Jobs.buy, list[int]()

    def counted(channel: Jobs, order: Order) -> int:
        jobs.append(len(order.queries))
        return buy(channel, order)

    monkeypatch.setattr(Jobs, "buy", counted)
    monkeypatch.setattr(asked_queries, "_PROBED", 8)
    pupil.config = pupil.config.changed(unlabelled=pupil.pool())
    pupil.learn("run", budget=100, batch=True)
    purchase = pupil.read("run/purchase.json")
    assert purchase["queries_bought"] == 3 + 24 + 1
    assert purchase["cost_micros"] == pupil.agreed[0] == 3 * 20 + 8 * 100 + 17 * 50
    assert jobs == [17]


@pytest.mark.parametrize("by", ["a probe", "a comparison"])
def test_where_a_class_prompt_is_refused_no_image_is_bought(pupil: Pupil, by: str) -> None:
    pupil.rename("circle", "circle_of_a_long_name")
    config = pupil.config.changed(unlabelled=pupil.pool())
    dataset = read_dataset(config, Display.of_nobody())
    teacher = Buyer(pupil.client, pupil.cache, model=pupil.client.model(), run_id="run", budget=100)

    def buy() -> None:
        if by == "a probe":
            probe(config, dataset, teacher, 25, lambda _: None)
            return
        texts, labelled, further = (asked := teacher_queries(config, dataset)).lots(asked.all)
        folder = RunFolder(pupil.folder / "table")
        folder.begin(config)
        connection = Connection(VendorOptions(vendor="", cache=pupil.cache.path), Display.of_nobody())
        purchase = JointPurchase(folder, connection, None, lambda _: None)
        purchase.buy(teacher, [Asked([*labelled, *texts], further)])

    with pytest.raises(DataError, match=r"class prompt 'a photo of a circle of a long name' .*another name"):
        buy()
    assert teacher.spending.queries == 2  # the other prompts


@pytest.mark.parametrize(
    ("images", "method", "labelled"),
    [(0, "vl2v-adip", "0"), (3, "vl2v-adip", "1[0-9]"), (5, "text-only", "0")],
)
def test_a_probe_without_labelled_images_to_judge_by_buys_nothing(
    pupil: Pupil, images: int, method: str, labelled: str
) -> None:
    _leave_no_label(pupil)
    if images:
        data = make_folder(pupil.folder / "few", images=images)
        pupil.config = pupil.config.changed(data=str(data), target_domain="red", method=method)
    dataset = read_dataset(pupil.config, Display.of_nobody())
    teacher = Buyer(pupil.client, pupil.cache, model=pupil.client.model(), run_id="run", budget=30)
    with pytest.raises(UsageError, match=rf"labelled images or more, and the run asks about {labelled}\."):
        probe(pupil.config, dataset, teacher, 30, lambda _: None)
    assert not pupil.cache.receipts()


@pytest.mark.parametrize("batch", [False, True])
def test_an_image_that_was_refused_in_a_request_of_before_keeps_nothing_else_from_being_bought(
    pupil: Pupil, monkeypatch: pytest.MonkeyPatch, batch: bool
) -> None:
    """Killed before it stores its images, of which the vendor charged all but one, the run is repeated."""
    first = teacher_queries(pupil.config, read_dataset(pupil.config, Display.of_nobody())).of("labelled")
    large = first.queries[0].name
    Image.new("RGB", (101, 100)).save(large)
    store = EmbeddingCache.commit

    def stop(cache: EmbeddingCache, batch: Batch, *given: Any, **named: Any) -> Paid:
        if batch.queries[0].kind == "image":
            raise KeyboardInterrupt
        return store(cache, batch, *given, **named)

    with monkeypatch.context() as patched:
        patched.setattr(EmbeddingCache, "commit", stop)
        with pytest.raises(KeyboardInterrupt):
            pupil.learn("run", budget=10)
    pupil.learn("run", budget=100, batch=batch)
    assert pupil.read("run/purchase.json")["queries_bought"] == 3 + 23
    assert [each["name"] for each in pupil.read("run/purchase.json")["refused"]] == [large]
    assert "1 of 24 training images have no teacher embedding (the vendor refused them)" in " ".join(
        pupil.shown.getvalue().split()
    )


def test_what_came_from_the_cache_is_what_the_run_did_not_pay_for(pupil: Pupil) -> None:
    def counted(run: str) -> tuple[int, int]:
        purchase = pupil.read(f"{run}/purchase.json")
        return purchase["queries_bought"], purchase["queries_cached"]

    pupil.learn("first", budget=10)
    pupil.learn("second", budget=5)
    pupil.learn("second", budget=100)
    assert (counted("first"), counted("second")) == ((10, 0), (17, 10))
    pupil.rename("circle", "disc")
    pupil.learn("second", budget=100)
    (model,) = pupil.cache.fingerprints()
    pupil.cache.prune(model)
    pupil.learn("first", budget=100)
    assert counted("first") == (37, 0)
    pupil.learn("first", budget=100)
    assert counted("first") == (37, 0)


@pytest.mark.parametrize(("batch", "each"), [(False, 100), (True, 50)])
def test_a_vendor_is_compared_once_with_what_the_run_has_from_another(
    pupil: Pupil, vendor: LocalVendor, batch: bool, each: int
) -> None:
    """The same vendor under another name sells the class prompts and a part of the images first."""
    with VendorClient(f"http://localhost:{vendor.port}", vendor.key()) as elsewhere:
        here, pupil.client = pupil.client, elsewhere
        pupil.learn("first", budget=10)
    pupil.client = here
    pupil.learn("run", budget=100, batch=batch)
    purchase = pupil.read("run/purchase.json")
    checked = 2 * CANARIES
    assert purchase["queries_bought"] == 17 + checked
    assert purchase["cost_micros"] == 17 * each + CANARIES * (100 + 20)
    assert f"{100 - 17 - checked} queries of the budget stay unspent" in pupil.shown.getvalue()


@pytest.mark.parametrize("batch", [False, True])
def test_what_another_vendor_sold_is_not_mixed_with_what_differs_from_it(pupil: Pupil, batch: bool) -> None:
    _sell_elsewhere(pupil, "texts", "images")
    with pytest.raises(AnswerRejected, match="--cache"):
        pupil.learn("run", budget=100, batch=batch)
    assert pupil.client.account().queries_used == CANARIES


def test_what_several_vendors_sold_is_not_mixed_where_the_budget_does_not_reach_to_compare(
    pupil: Pupil,
) -> None:
    pupil.learn("first", budget=3)  # the class prompts
    _sell_elsewhere(pupil, "images")
    with pytest.raises(BudgetExhausted, match="0 queries does not suffice to compare the vendor"):
        pupil.learn("run", budget=0)
    with pytest.raises(AnswerRejected, match="--cache"):
        pupil.learn("run", budget=100)


def _sell_elsewhere(pupil: Pupil, *what: str) -> None:
    """Have another vendor sell what a run asks, of a model that is another one under the same name."""
    model = pupil.client.model()
    asked = teacher_queries(pupil.config, read_dataset(pupil.config, Display.of_nobody()))
    queries = (*(asked.prompts if "texts" in what else ()), *asked.of("labelled").queries[:10])
    directions = np.random.default_rng(0).normal(size=(len(queries), model.dimensions))
    vectors = {query: _unit(row.astype(np.float32)) for query, row in zip(queries, directions, strict=True)}
    batch = Batch("key", "elsewhere", model.fingerprint, queries)
    usage = Usage(images=0, texts=0, billed_queries=0, cost_micros=0)
    pupil.cache.commit(batch, vectors, usage, "req_1", Payer("http://elsewhere:80"))


def test_what_another_run_buys_meanwhile_comes_from_the_cache(
    pupil: Pupil, monkeypatch: pytest.MonkeyPatch
) -> None:
    buy = Buyer.buy

    def after_another(teacher: Buyer, queries: Any, *rest: Any, **named: Any) -> Any:
        buy(teacher.for_run("another", budget=None), queries)
        return buy(teacher, queries, *rest, **named)

    monkeypatch.setattr(Buyer, "buy", after_another)
    pupil.learn("run", budget=100)
    purchase = pupil.read("run/purchase.json")
    assert (purchase["queries_bought"], purchase["queries_cached"]) == (0, 27)


def test_a_plan_is_of_the_folder_as_it_is(pupil: Pupil) -> None:
    pupil.learn("run", budget=100)
    assert pupil.read("run/plan.json")["classes"] == ["circle", "square", "tall_bar"]
    pupil.rename("tall_bar", "bar")
    pupil.learn("run", budget=100)
    plan = pupil.read("run/plan.json")
    assert plan["classes"] == ["bar", "circle", "square"]
    assert plan["purchase"]["to_buy"] == 1


def test_a_run_goes_on_with_the_model_that_it_began_with(pupil: Pupil) -> None:
    pupil.learn("run", budget=100)
    plan = pupil.read("run/plan.json")
    plan["model"]["fingerprint"] = "fp_former"
    (pupil.folder / "run" / "plan.json").write_text(json.dumps(plan))
    for _ in range(2):
        with pytest.raises(FingerprintChanged, match="began with the model fp_former"):
            pupil.learn("run", budget=100)


@pytest.mark.parametrize(
    ("limits", "enough"),
    [((3, None), "a --budget of at least 4"), ((100, 159), "a --max-spend of at least 160")],
)
def test_without_a_label_a_budget_that_reaches_no_image_buys_nothing(
    pupil: Pupil, limits: tuple[int, int | None], enough: str
) -> None:
    _leave_no_label(pupil)
    with pytest.raises(BudgetExhausted, match=rf"none of the 1 unlabelled .* start again with {enough}\."):
        pupil.learn("run", budget=limits[0], max_spend=limits[1])
    assert not pupil.cache.receipts()
    learnt = pupil.learn("run", budget=4, max_spend=160)
    assert learnt.train == pupil.dataset.unlabelled
    pupil.learn("run", budget=3)  # what was bought before counts


def test_without_a_label_there_is_nothing_to_train_on_where_the_vendor_refuses_every_image(
    pupil: Pupil,
) -> None:
    _leave_no_label(pupil)
    Image.new("RGB", (101, 100)).save(pupil.folder / "pool" / "a.png")
    with pytest.raises(DataError, match="no image to train on: none has a label, and none of the 1 without"):
        pupil.learn("run", budget=100)
    assert pupil.read("run/purchase.json")["queries_bought"] == 3


def _leave_no_label(pupil: Pupil) -> None:
    """Names of classes, and one image without a label."""
    names = pupil.folder / "classes.txt"
    names.write_text("circle\nsquare\ntall bar\n")
    pupil.config = pupil.config.changed(data=str(names), target_domain=None, unlabelled=pupil.pool())


def test_where_money_does_not_reach_the_class_prompts_the_money_that_does_is_named(pupil: Pupil) -> None:
    price = 3 * pupil.client.model().prices.text_micros
    with pytest.raises(BudgetExhausted, match=f"start again with a --max-spend of at least {price}\\."):
        pupil.learn("run", budget=5000, max_spend=price - 1)
    assert not pupil.cache.receipts()  # nothing is bought for a student that cannot be
    pupil.learn("run", budget=5000, max_spend=price)


def test_rise_buys_its_sentences_and_learns_from_what_they_say(pupil: Pupil) -> None:
    with pytest.raises(BudgetExhausted, match=r"26 of the 27 class prompts .* a --budget of at least 27"):
        pupil.learn("poor", budget=1, method_name="rise")
    lesson = pupil.learn("run", budget=50, method_name="rise")
    assert pupil.read("run/plan.json")["purchase"]["prompts"] == 3 * (7 + 2)
    assert pupil.read("run/purchase.json")["queries_bought"] == 50
    teacher = Buyer(pupil.client, pupil.cache, model=pupil.client.model(), run_id="look", budget=0)

    def vector(sentence: str) -> NDArray[np.float32]:
        vectors, have = teacher.lookup([Query.text(sentence)])
        assert have.all()
        return vectors.reshape(-1)

    assert lesson.texts is not None
    assert lesson.text_head is not None
    for row, name in enumerate(("circle", "square", "tall bar")):
        ensemble = [
            f"itap of a {name}.", f"a bad photo of the {name}.", f"a origami {name}.",
            f"a photo of the large {name}.", f"a {name} in a video game.", f"art of the {name}.",
            f"a photo of the small {name}.",
        ]  # fmt: skip
        mean = np.mean([vector(sentence) for sentence in ensemble], axis=0)
        class_text = mean / np.linalg.norm(mean)
        styled = [vector(f"a {domain} of a {name}") for domain in ("dark", "light")]
        np.testing.assert_allclose(lesson.texts[row], [class_text, *styled], atol=1e-6)
        np.testing.assert_allclose(lesson.text_head[row], class_text, atol=1e-6)
