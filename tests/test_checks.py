"""Pre-commit and continuous integration do what `make check` and `make test` do."""

import re
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")


def _commands(target: str) -> list[str]:
    """The commands of a target, with `.venv` in the place of make's variables."""
    recipe = re.search(rf"^{target}:.*\n((?:\t.*\n)+)", MAKEFILE, re.MULTILINE)
    assert recipe is not None
    lines = [line.removeprefix("\t@") for line in recipe[1].splitlines()]
    named = {"$(BIN)": ".venv/bin", "$(VENV)": ".venv", " $(AUDIT_OPTIONS)": ""}
    return [re.sub("|".join(map(re.escape, named)), lambda found: named[found[0]], line) for line in lines]


def test_pre_commit_runs_the_commands_of_make_check() -> None:
    (local,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"]
    assert [hook["entry"] for hook in local["hooks"]] == _commands("check")


def test_integration_calls_targets_that_there_are_on_every_supported_python() -> None:
    workflow = yaml.safe_load((ROOT / ".github/workflows/check.yml").read_text(encoding="utf-8"))
    job, speed = workflow["jobs"].values()
    commands, measured = ([step["run"] for step in each["steps"] if "run" in step] for each in (job, speed))
    assert commands == ["make PYTHON=python check", "make PYTHON=python test"]
    assert measured == ['make PYTHON=python bench-quick QUICK="--out quick.json"']
    assert job["strategy"]["matrix"]["python"][0] == "3.11"
    assert 'requires-python = ">=3.11"' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")
