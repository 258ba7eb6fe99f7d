"""Steps and answers by halves: the same as whole ones but for rounding, on half of the threads each."""

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from textwrap import dedent
from typing import cast

import pytest
import torch
from torch import Tensor, nn

from client.learning import data_parallel
from client.learning.backbones import load_backbone
from client.learning.data_parallel import DataParallel, by_halves, keep_activations, using_threads
from client.learning.folding import fold_norms
from client.learning.student import StudentNetwork, build_student

SIDE = 48


@pytest.fixture(autouse=True)
def _two_threads() -> Iterator[None]:
    with using_threads(2):
        yield


def _student() -> StudentNetwork:
    torch.manual_seed(0)
    student = build_student(
        load_backbone("tf_efficientnet_lite0"), outputs=16, text_head=None, image_size=SIDE
    )
    fold_norms(student.train().backbone, SIDE)
    return student


def _pixels(images: int) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (images, 3, SIDE, SIDE), generator=generator).float()


def _gradients(student: StudentNetwork, module: nn.Module, pixels: Tensor) -> dict[str, Tensor]:
    student.zero_grad()
    outputs = module(pixels)
    # Couples the rows, as RISE's and the hold-outs' losses may: a half alone could not tell its own gradient.
    (outputs - outputs.mean(dim=0)).square().mean().backward()
    return {name: p.grad.clone() for name, p in student.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("images", [2, 5, 8])
def test_outputs_and_gradients_are_those_of_the_whole_batch(images: int) -> None:
    student, pixels = _student(), _pixels(images)
    frozen = [p.requires_grad_(False) for p in list(student.parameters())[:20]]
    halves = DataParallel(student)
    torch.testing.assert_close(halves(pixels), student(pixels), rtol=1e-3, atol=1e-4)
    whole, by_half, again = (_gradients(student, module, pixels) for module in (student, halves, halves))
    assert len(whole) == len(list(student.parameters())) - len(frozen)
    assert by_half.keys() == whole.keys()
    for name, gradient in whole.items():
        scale = gradient.abs().max().item()
        torch.testing.assert_close(by_half[name], gradient, rtol=1e-3, atol=1e-3 * scale + 1e-7)
        assert torch.equal(again[name], by_half[name]), "the same step again, bit for bit"


class _Meeting(nn.Module):
    """A layer that notes whether its halves are computed at once, forward or backward."""

    def __init__(self, *, backward: bool) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)
        self._backward = backward
        self._together = threading.Barrier(2)
        self.patience = 0.3
        self.met: list[bool] = []

    def forward(self, rows: Tensor) -> Tensor:
        outputs = cast(Tensor, self.layer(rows))
        if not self._backward:
            self._meet()
        elif outputs.requires_grad:
            outputs.register_hook(lambda _: self._meet())  # type: ignore[no-untyped-call]
        return outputs

    def _meet(self) -> None:
        try:
            self._together.wait(timeout=self.patience)
            self.met.append(True)
        except threading.BrokenBarrierError:
            self._together.reset()
            self.met.append(False)


def _step(module: nn.Module, rows: Tensor) -> None:
    module(rows).sum().backward()


def _answer(module: nn.Module, rows: Tensor) -> None:
    with torch.no_grad():
        by_halves(module, rows, module=module)


@pytest.mark.parametrize(
    ("take", "backward"), [(_answer, False), (_step, False), (_step, True)], ids=["answer", "forward", "back"]
)
def test_halves_of_a_new_shape_are_taken_one_after_the_other(
    take: Callable[[nn.Module, Tensor], None], backward: bool
) -> None:
    """Or else oneDNN makes code for one shape in two threads at once, and now and then mixes them up."""
    meeting = _Meeting(backward=backward)
    module = meeting if take is _answer else DataParallel(meeting)
    for rows in (8, 12):
        for known in (False, True):
            meeting.met.clear()
            meeting.patience = 20 if known else 0.3
            take(module, torch.ones(rows, 4))
            assert any(meeting.met) == known


@pytest.mark.slow
def test_the_first_step_is_the_same_in_every_process() -> None:
    """Before new shapes were taken alone, about one in thirty of these differed."""
    program = """
        import hashlib, torch
        from client.learning.data_parallel import DataParallel
        from tests.client.learning.test_data_parallel import _gradients, _student
        torch.set_num_threads(2)
        generator = torch.Generator().manual_seed(1)
        pixels = torch.randint(0, 256, (48, 3, 96, 96), generator=generator).float()
        student = _student()
        gradients = _gradients(student, DataParallel(student), pixels).values()
        print(hashlib.sha256(b"".join(each.numpy().tobytes() for each in gradients)).hexdigest())
    """
    printed = {
        subprocess.run([sys.executable, "-c", dedent(program)], capture_output=True, check=True).stdout
        for _ in range(60)
    }
    assert len(printed) == 1


class _Watched(nn.Module):
    """A layer that notes who asks it, about how many rows, with how many threads, and for a step or not."""

    def __init__(self, *, drops: bool = False) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)
        self.dropout = nn.Dropout(0.5 if drops else 0.0)
        self.asked: list[tuple[str, int, int, bool]] = []

    def forward(self, rows: Tensor) -> Tensor:
        name = threading.current_thread().name
        self.asked.append((name, len(rows), torch.get_num_threads(), torch.is_grad_enabled()))
        return cast(Tensor, self.dropout(self.layer(rows)))


def test_each_half_is_taken_by_half_of_the_threads() -> None:
    watched = _Watched()
    halves = DataParallel(watched)
    rows = torch.ones(5, 4)
    halves(rows)
    first, *asked = watched.asked  # whether it draws random numbers is seen on one row
    assert first[1:] == (1, 2, False)
    assert sorted(each[1:] for each in asked) == [(2, 1, True), (3, 1, True)]
    assert all(name.startswith("team") for name, *_ in asked)
    watched.asked.clear()
    with torch.no_grad():
        halves(rows)
        assert torch.equal(by_halves(watched, rows), watched(rows))
    assert [each[1:] for each in watched.asked[:1]] == [(5, 2, False)], "an answer is not a step"
    assert sorted(each[1:] for each in watched.asked[1:3]) == [(2, 1, False), (3, 1, False)]


@pytest.mark.parametrize(("threads", "rows"), [(1, 4), (3, 4), (2, 1)])
def test_what_cannot_be_shared_is_done_whole(threads: int, rows: int) -> None:
    watched = _Watched()
    with using_threads(threads):
        DataParallel(watched)(torch.ones(rows, 4))
        by_halves(watched, torch.ones(rows, 4))
    assert {each[:3] for each in watched.asked} == {(threading.current_thread().name, rows, threads)}


def test_a_module_that_draws_sees_whole_batches_and_the_draws_it_would_have_seen() -> None:
    rows = torch.ones(64, 4)
    watched = _Watched(drops=True)
    torch.manual_seed(3)
    expected = watched(rows)
    torch.manual_seed(3)
    assert torch.equal(DataParallel(watched)(rows), expected)


def test_a_module_whose_rows_share_statistics_sees_whole_batches() -> None:
    norm = nn.BatchNorm1d(4)
    rows = torch.rand(6, 4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(DataParallel(norm)(rows), nn.BatchNorm1d(4)(rows))
    norm.eval()
    torch.testing.assert_close(DataParallel(norm)(rows), norm(rows))


def test_inference_mode_reaches_both_halves() -> None:
    with torch.inference_mode():
        assert by_halves(_Watched(), torch.ones(4, 4)).is_inference()
    assert not by_halves(lambda rows: rows.clone(), torch.ones(4, 4)).is_inference()


@pytest.mark.parametrize(("image_size", "heaps"), [(96, 3), (128, 3), (224, 1)])
def test_teams_have_heaps_of_their_own_while_tensors_fit_them(
    image_size: int, heaps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    monkeypatch.setattr(data_parallel, "keep_freed", lambda *, heaps: asked.append(heaps))
    keep_activations(image_size)
    assert asked == [heaps]


def test_an_error_of_one_half_is_raised() -> None:
    def compute(rows: Tensor) -> Tensor:
        if rows[0, 0] == 0:
            raise ValueError("half")
        return rows

    with pytest.raises(ValueError, match="half"):
        by_halves(compute, torch.tensor([[1.0], [1.0], [0.0], [0.0]]))
