"""FixMatch and the averaged teacher, written through the public interface, do what their papers say."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from client.contrib import fixmatch
from client.errors import ClientError, UsageError
from client.learning.methods import METHODS, Method, method_of, register_method
from client.learning.recipe import Augmentation
from client.learning.stages import align, align_features, distill, pixel_batches
from client.learning.supervision import Supervision
from client.learning.training import Schedule, Training, moving_mean
from client.learning.training_set import TrainingSet
from client.learning.views import own_views
from client.runs.targets import target_rows
from tests.client.learning.toy_lessons import RECIPE, toy_lesson
from tests.client.toy import make_folder

OWN = ("fixmatch", "fixmatch-label-only", "pseudo-labels", "mean-teacher")
BRIEF = replace(RECIPE, align_views=1, align_steps=2, steps=3, images_per_domain=2, evaluations=3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("contrib") / "toy", images=5)


def test_only_sure_answers_teach_and_by_the_strong_view_alone() -> None:
    weak = torch.tensor([[9.0, 0.0], [0.0, 9.0], [0.1, 0.0], [3.0, 0.0]], requires_grad=True)
    strong = torch.randn(4, 2, generator=torch.Generator().manual_seed(0)).requires_grad_()
    labels = torch.tensor([-1, -1, -1, 1])
    loss = fixmatch.on_labels(torch.stack([weak, strong]), labels)
    sure = functional.cross_entropy(strong[:2], torch.tensor([0, 1]), reduction="sum")
    taught = functional.cross_entropy(weak[3:], labels[3:])
    torch.testing.assert_close(loss, taught + sure / 3)  # of three without a label, two are sure
    loss.backward()  # type: ignore[no-untyped-call]
    assert weak.grad is not None
    assert strong.grad is not None
    assert not weak.grad[:3].any()
    assert strong.grad[:2].any()
    assert not strong.grad[2:].any()


def test_a_weak_view_moves_an_image_and_a_strong_one_changes_it() -> None:
    plain = torch.tensor([200, 90, 40], dtype=torch.uint8).view(3, 1, 1).expand(3, 64, 64).contiguous()
    torch.manual_seed(0)
    assert all(torch.equal(fixmatch.weak(plain), plain) for _ in range(10))
    views = [fixmatch.strong(plain) for _ in range(10)]
    assert {(view.dtype, view.shape) for view in views} == {(torch.uint8, plain.shape)}
    assert all((view == 127).all(0).sum() >= 16**2 for view in views)  # what Cutout leaves in a corner
    assert sum(bool(((view != plain) & (view != 127)).any()) for view in views) > 5
    assert len({view.numpy().tobytes() for view in views}) == 10


def _lesson(folder: Path, method: Method) -> tuple[Any, TrainingSet]:
    """The toy with a third of its training images without labels, and this method's targets."""
    student, data = toy_lesson(folder, "label-only" if method.head == "texts" else "erm")
    labels, domains = data.labels.clone(), data.domains.clone()
    labels[data.train[::3]], domains[data.train[::3]] = -1, -1
    head = student.text_head if student.text_head is not None else torch.empty(0, 0)
    none = torch.zeros(len(labels), head.shape[1])
    known = Supervision(labels, head, none, torch.zeros(len(labels), dtype=torch.bool), 0.5)
    rows = target_rows(known, method, folder)
    return student, replace(
        data, labels=labels, domains=domains, targets=rows, texts=method.texts_of_loss(known)
    )


@pytest.mark.parametrize("name", OWN)
def test_a_method_of_the_entry_points_trains_and_resumes_bit_for_bit(folder: Path, name: str) -> None:
    method, states = method_of(name), []
    for interrupted in (False, True):
        student, data = _lesson(folder, method)
        saved: list[Any] = []
        if method.aligns:
            align(student, data, align_features(student, data, BRIEF, seed=0), method, BRIEF, seed=0)
        before = {key: tensor.clone() for key, tensor in student.state_dict().items()}

        def keep(checkpoint: Any, saved: list[Any] = saved) -> None:
            saved.append(torch.load(_file(folder, checkpoint), weights_only=True))

        distill(student, data, method, BRIEF, seed=0, save=keep)
        if interrupted:
            student.load_state_dict(before)
            distill(student, data, method, BRIEF, seed=0, resume=saved[0])
        states.append(student.state_dict())
    assert all(torch.equal(states[0][key], states[1][key]) for key in before)
    assert any(not torch.equal(states[0][key], before[key]) for key in before)


def _file(folder: Path, checkpoint: Any) -> Path:
    torch.save(checkpoint, folder / "checkpoint")
    return folder / "checkpoint"


def test_the_mean_of_the_weights_is_kept_and_its_answers_come_behind_the_targets() -> None:
    torch.manual_seed(0)
    module, seen, weights = nn.Linear(2, 1, bias=False), list[Tensor](), list[Tensor]()
    mean = moving_mean(module, 0.7)
    inputs = torch.randn(2 * 4, 2)  # two views of four images

    def loss(outputs: Tensor, targets: tuple[Tensor, Tensor]) -> Tensor:
        weights.append(module.weight.detach().clone())
        assert outputs.shape == targets[1].shape == (2, 4, 1)
        seen.append(targets[1])
        return (outputs - targets[0].unsqueeze(0)).square().mean()

    Training(
        module, list(module.parameters()), lambda _: (inputs, torch.ones(4, 1)), loss,
        Schedule(5, 0.1, 1, cosine=False), views=2, average=mean, average_teaches=True,
    ).run()  # fmt: skip
    expected = weights[1].clone()  # after the first step, of which nothing before it is left
    for step, after in enumerate(weights[2:], start=1):
        torch.testing.assert_close(seen[step].flatten(), (inputs @ expected.T).flatten())
        share = min(0.7, 1 - 1 / (step + 1))
        expected = share * expected + (1 - share) * after
    torch.testing.assert_close(seen[-1].flatten(), (inputs @ expected.T).flatten())
    assert not torch.equal(module.weight, weights[-1])
    assert torch.equal(module.weight, mean.module.get_parameter("weight"))


def test_each_view_is_as_it_is_said_and_the_first_as_without_others(folder: Path) -> None:
    student, data = toy_lesson(folder, "erm")
    alone, _ = pixel_batches(student, data, BRIEF, seed=0)(1)
    grey = Augmentation(grayscale=1.0, style=0.0)
    both, _ = pixel_batches(student, data, BRIEF, seed=0, views=(None, grey, lambda image: 255 - image))(1)
    first, second, third = both.chunk(3)
    assert torch.equal(first, alone)
    torch.testing.assert_close(second[:, 0], second[:, 1])
    assert not torch.equal(first, second)
    assert third.shape == first.shape


def test_a_view_of_ones_own_is_drawn_by_the_seed_and_leaves_the_generators_as_they_are() -> None:
    pixels = torch.randint(256, (3, 8, 8, 3), dtype=torch.uint8)
    before = torch.random.get_rng_state()

    def draw(seed: int, places: range) -> Tensor:
        return own_views(
            lambda image: image * torch.rand(()), pixels[places.start :], places, seed=seed, size=8
        )

    whole = draw(1, range(3))
    assert torch.equal(draw(1, range(1, 3)), whole[1:])  # a shard of it
    assert not torch.equal(draw(2, range(3)), whole)
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize(
    ("view", "said"),
    [
        (lambda image: image / 255, "values from 0 to 1"),
        (lambda image: image.float() - 300, "values from -2"),
        (lambda image: image * float("nan"), "values from nan"),
        (lambda image: image[0], r"gives \(8, 8\) for an image"),
        (lambda _: 5, "gives int for an image"),
        (
            lambda image: image.meta["side"],
            r"raised AttributeError: 'Tensor' object has no attribute 'meta' \(test_methods.py, line",
        ),
    ],
)
def test_a_view_that_gives_no_image_is_refused_in_words(view: Any, said: str) -> None:
    pixels = torch.randint(100, 256, (2, 8, 8, 3), dtype=torch.uint8)
    with pytest.raises(ClientError, match=said):
        own_views(view, pixels, range(2), seed=0, size=8)


def _fails(*_: Any) -> Any:
    raise ValueError("of mine")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"loss": lambda outputs, _: outputs},
            r"loss of mine gives \(\d+, 3\): it has to give one number",
        ),
        ({"loss": lambda *_: torch.tensor(1.0)}, "that depends on the outputs"),
        ({"loss": _fails}, r"loss of mine raised ValueError: of mine \(test_methods.py"),
        ({"targets": lambda known: known.labels[:3]}, r"targets of mine have shape \(3,\), for 30 images"),
        ({"targets": lambda known: [known.labels]}, "they have to be a tensor, or a tuple"),
        ({"targets": _fails}, "targets of mine raised ValueError"),
    ],
)
def test_what_a_method_gives_is_checked(folder: Path, changes: Any, said: str) -> None:
    method = replace(METHODS["erm"], name="mine", **changes)
    with pytest.raises(ClientError, match=said):
        distill(*_lesson(folder, method), method, BRIEF, seed=0)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"name": "two words"}, "cannot be called 'two words'"),
        ({"name": "kd"}, "a method of Tuition's own"),
        ({"head": "own"}, "its head is 'own'"),
        ({"teacher": "average"}, "its average is a share"),
        ({"views": ()}, "one at least"),
        ({"trains": frozenset({"body"})}, "its trains is"),
    ],
)
def test_a_method_that_cannot_be_is_not_registered(changes: Any, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        register_method(replace(METHODS["erm"], **{"name": "mine", **changes}))
