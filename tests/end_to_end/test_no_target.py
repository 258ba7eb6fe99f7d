"""No domain held out: every domain trains, and what a new one would get is measured where it is asked for."""

import json
import shutil
from collections.abc import Mapping
from typing import Any

import pytest

from client.data.listing import list_folder
from tests.client.toy import CLASSES, DOMAINS, draw, make_folder
from tests.end_to_end.command import TINY, Command
from tests.support.vendor_process import VendorProcess

_SMALL = (*TINY, "--data", "toy", "--budget", "200", "--image-size", "32", "--steps", "2", "--out", "run")


@pytest.fixture
def client(vendor_process: VendorProcess, tmp_path: Any) -> Command:
    make_folder(tmp_path / "toy", images=5)
    return Command(tmp_path, vendor_process.url, vendor_process.create_key(quota=1000))


def _json(client: Command, name: str) -> dict[str, Any]:
    value: dict[str, Any] = json.loads((client.folder / "run" / name).read_text())
    return value


def _pages(client: Command) -> str:
    return " ".join(
        " ".join((client.folder / "run" / name).read_text().split()) for name in ("report.html", "README.md")
    )


def test_every_domain_trains_and_the_accuracy_is_said_to_be_of_known_domains(client: Command) -> None:
    shown = client("distill", *_SMALL)
    plan, summary = _json(client, "plan.json"), _json(client, "summary.json")
    assert (plan["target_domain"], plan["source_domains"]) == (None, sorted(DOMAINS))
    assert plan["images_by_domain"] == dict.fromkeys(sorted(DOMAINS), 15)
    assert summary["queries_bought"] == len(CLASSES) + summary["train_images"]
    assert set(summary["accuracy"]["by_domain"]) == set(DOMAINS)
    assert summary["accuracy"]["out_of_domain"] is None
    assert summary["leave_one_out"] == {}
    assert "No domain was held out" in shown.stdout
    assert "--leave-one-out measures it" in shown.stdout
    pages = _pages(client)
    assert "No domain was held out: its accuracy is that on held-out images <b>like those" in pages
    assert "What to expect of a new domain was not measured" in pages
    assert "None" not in pages


@pytest.mark.long
@pytest.mark.slow  # it trains four students
def test_leaving_each_domain_out_costs_no_query_more(client: Command, vendor_process: VendorProcess) -> None:
    shutil.rmtree(client.folder / "toy" / "red")
    shown = client("distill", *_SMALL, "--leave-one-out")
    summary = _json(client, "summary.json")
    assert vendor_process.charges(client.api_key).queries == summary["queries_bought"]
    assert summary["queries_bought"] == len(CLASSES) + summary["train_images"]
    assert set(summary["leave_one_out"]) == {*DOMAINS} - {"red"}
    for domain, accuracy in summary["leave_one_out"].items():
        other = _json(client, f"leave-one-out/{domain}/summary.json")
        assert (other["target_domain"], other["accuracy"]["by_domain"][domain]) == (domain, accuracy)
        assert domain not in _json(client, f"leave-one-out/{domain}/plan.json")["source_domains"]
    assert summary["accuracy"]["out_of_domain"] is None
    assert "To expect of a new domain" in shown.stdout
    assert "when left out" in _pages(client)
    assert "To expect of a new domain" in _pages(client)
    again = client("distill", *_SMALL, "--leave-one-out")
    assert "Distilling" not in again.stderr


def test_what_was_measured_stays_as_long_as_the_student_and_one_yes_replaces_both(
    client: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree(client.folder / "toy" / "red")
    probe = ("distill", *_SMALL, "--method", "linear-probe")
    client(*probe, "--leave-one-out")
    measured = _json(client, "summary.json")["leave_one_out"]
    assert set(measured) == {"dark", "light"}
    assert "To expect of a new domain" in client(*probe).stdout
    assert _json(client, "summary.json")["leave_one_out"] == measured
    assert "when left out" in _pages(client)

    circles = client.folder / "toy" / "dark" / "circle"
    draw("circle", "black", "white", seed=900).save(circles / "added.png")
    asked: list[str] = []

    def agree(question: str, **_: object) -> bool:
        asked.append(question)
        return True

    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("typer.confirm", agree)
    client(*probe, "--leave-one-out")
    assert len(asked) == 1
    assert set(_json(client, "summary.json")["leave_one_out"]) == {"dark", "light"}
    (circles / "added.png").unlink()
    client(*probe)
    assert _json(client, "summary.json")["leave_one_out"] == {}  # it was of other images


def test_a_method_that_would_ask_other_texts_of_one_domain_leaves_none_of_two_out(
    client: Command, vendor_process: VendorProcess
) -> None:
    """RISE says a class in the style of each domain, and of a domain alone in other styles."""
    run = ("distill", *_SMALL, "--method", "rise", "--leave-one-out")
    begun = client(*run, "--budget", "1", code=3)  # three domains leave two, about whose styles it has asked
    assert "class prompts are beyond the budget" in begun.stderr
    shutil.rmtree(client.folder / "toy" / "red")
    spent = vendor_process.charges(client.api_key).queries
    refused = client(*run, "--out", "other", code=2)
    assert "of one alone rise asks other texts than of both" in refused.stderr
    assert vendor_process.charges(client.api_key).queries == spent
    assert not (client.folder / "other").exists()
    shutil.copytree(client.folder / "toy", client.folder / "VLCS")  # known for names that say no style
    known = client(*run, "--data", "VLCS", "--out", "known", "--budget", "1", code=3)
    assert "class prompts are beyond the budget" in known.stderr


def test_nothing_is_bought_where_a_domain_left_out_leaves_nothing_to_train_on(
    client: Command, vendor_process: VendorProcess
) -> None:
    shutil.rmtree(client.folder / "toy" / "red")
    rows = [
        f"{file},{file.parent.name},{domain},{side}"
        for domain, side in (("dark", ""), ("light", "val"))
        for file in sorted((client.folder / "toy" / domain).glob("*/*.png"))
    ]
    (client.folder / "toy.csv").write_text("\n".join(["path,label,domain,split", *rows]))
    spent = vendor_process.charges(client.api_key).queries
    refused = client("distill", *_SMALL, "--data", "toy.csv", "--leave-one-out", code=2)
    assert "Checking what is left without dark ..." in refused.stderr
    assert "has no image to train on: all 15 readable images" in refused.stderr
    assert not (client.folder / "run" / "leave-one-out").exists()
    assert vendor_process.charges(client.api_key).queries == spent


def _table(client: Command, names: Mapping[str, str]) -> None:
    """A table of the toy images, whose domains have other names."""
    rows = [
        f"{file},{file.parent.name},{name}"
        for domain, name in names.items()
        for file in sorted((client.folder / "toy" / domain).glob("*/*.png"))
    ]
    (client.folder / "toy.csv").write_text("\n".join(["path,label,domain", *rows]))


def test_a_domain_is_left_out_whatever_its_name(client: Command) -> None:
    names = ("..", "2024/05", "\u0416" * 60)
    _table(client, dict(zip(DOMAINS, names, strict=True)))
    client("distill", *_SMALL, "--data", "toy.csv", "--method", "linear-probe", "--leave-one-out")
    assert set(_json(client, "summary.json")["leave_one_out"]) == set(names)
    assert len(list((client.folder / "run" / "leave-one-out").glob("*/summary.json"))) == 3


def test_nothing_is_bought_where_a_run_without_a_domain_has_no_folder(
    client: Command, vendor_process: VendorProcess
) -> None:
    spent = vendor_process.charges(client.api_key).queries
    taken = client.folder / "run" / "leave-one-out" / "light"
    client("distill", *_SMALL, "--budget", "0", code=3)
    taken.mkdir(parents=True)
    (taken / "notes.txt").touch()
    refused = client("distill", *_SMALL, "--leave-one-out", code=2).stderr
    assert "light exists and is not a run" in refused
    _table(client, {"dark": "dark", "light": "x" * 300})
    refused = client("distill", *_SMALL, "--data", "toy.csv", "--leave-one-out", "--out", "b", code=1).stderr
    assert "cannot be written: File name too long" in refused
    assert vendor_process.charges(client.api_key).queries == spent


def test_one_domain_alone_is_enough(client: Command) -> None:
    for domain in ("light", "red"):
        shutil.rmtree(client.folder / "toy" / domain)
    client("distill", *_SMALL)
    assert _json(client, "summary.json")["accuracy"]["by_domain"].keys() == {"dark"}
    refused = client("distill", *_SMALL[:-1], "other", "--leave-one-out", code=2)
    assert "takes at least two domains" in refused.stderr
    assert list_folder(client.folder / "toy").source_domains(None) == ("dark",)


def test_a_target_cannot_be_left_out_again(client: Command) -> None:
    refused = client("distill", *_SMALL, "--leave-one-out", "--target-domain", "red", code=2)
    assert "and no --target-domain" in refused.stderr
    assert not (client.folder / "run").exists()
