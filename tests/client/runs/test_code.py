"""The digest of what is plugged in: an edit changes it, and nothing else does."""

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from client.errors import UsageError
from client.learning.methods import METHODS, register_method
from client.runs.code import code_of, fingerprint
from tests.client.toy import run_config

SOURCE = """
import torch
from torch.nn import functional
WEIGHT = 2
class Helper:
    factor = 3
    def apply(self, x): return x * self.factor
def helper(x, by=1): return Helper().apply(x) * by
def made(power):
    def loss(outputs, targets):
        "What it is."
        return WEIGHT * helper(functional.cross_entropy(outputs, targets)) ** power
    return loss
loss = made(1)
"""


def _told(source: str = SOURCE, name: str = "loss") -> bytes:
    names: dict[str, Any] = {"__name__": "my_methods"}
    exec(compile(source, "my_methods.py", "exec"), names)
    return fingerprint(names[name], "It")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("WEIGHT = 2", "WEIGHT = 5"),
        ("factor = 3", "factor = 4"),
        ("x * self.factor", "x + self.factor"),
        ("by=1", "by=2"),
        ("made(1)", "made(2)"),
        ("cross_entropy", "mse_loss"),
    ],
)
def test_an_edit_of_code_or_of_what_it_uses_counts(before: str, after: str) -> None:
    assert _told() != _told(SOURCE.replace(before, after))


def test_what_changes_nothing_does_not_count() -> None:
    other = SOURCE.replace('"What it is."', '"It is better described."').replace(
        "WEIGHT = 2", "\n# two\nWEIGHT = 2"
    )
    assert _told() == _told(other + "\ndef unused(): pass\n")


def test_values_and_networks_count_and_being_in_training_does_not() -> None:
    torch.manual_seed(0)
    layer = torch.nn.Linear(2, 2)
    network = torch.nn.Sequential(layer, torch.nn.ReLU())
    before = fingerprint(network.train(), "It")
    assert fingerprint(network.eval(), "It") == before
    with torch.no_grad():
        layer.weight += 1
    assert fingerprint(network, "It") != before
    loss: list[Callable[..., Any]] = [lambda o, t: (o - t).mean(), lambda o, t: (o + t).mean()]
    assert fingerprint(loss[0], "It") != fingerprint(loss[1], "It")


def test_what_cannot_be_told_needs_a_fingerprint() -> None:
    lock = threading.Lock()

    def loss(outputs: Any, targets: Any) -> Any:
        with lock:
            return outputs

    with pytest.raises(UsageError, match=r"The loss uses something .* attribute `fingerprint`"):
        fingerprint(loss, "The loss")
    told = set()
    for mark in ("1", "2"):
        loss.fingerprint = mark  # type: ignore[attr-defined]
        told |= {fingerprint(loss, "The loss"), fingerprint(loss, "The loss")}
    assert len(told) == 2


def test_a_run_has_a_digest_of_its_own_method_alone() -> None:
    assert code_of(run_config(method="erm")) == ""
    mine = replace(METHODS["erm"], name="mine-of-this-test", loss=lambda o, t: (o - t).mean())
    config = run_config(method=register_method(mine))
    first = code_of(config)
    register_method(replace(mine, loss=lambda o, t: (o + t).mean()))
    assert first != code_of(config) != ""
    register_method(replace(mine, summary="in other words"))
    assert code_of(config) == first
