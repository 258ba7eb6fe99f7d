"""What is passed on of what somebody said, on the command line or in tuition.toml."""

from pathlib import Path
from typing import Any, NoReturn

import pytest
import typer.main
from typer.core import TyperGroup

from client.api import distillation
from client.api.options import DistillOptions
from client.cli.main import app, main
from client.cli.options import PASSED_ON_AS
from client.errors import ClientError


def test_every_option_of_a_run_is_known_by_its_name_on_the_command_line() -> None:
    group = typer.main.get_command(app)
    assert isinstance(group, TyperGroup)
    known = {parameter.name for parameter in group.commands["distill"].params}
    assert {PASSED_ON_AS.get(name, name) for name in DistillOptions.model_fields} <= known


@pytest.mark.parametrize("settings", [None, "[distill]\nno_wait = true\n"], ids=["typed", "tuition.toml"])
def test_a_next_generation_is_not_waited_for_either(
    settings: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: dict[str, Any] = {}

    def noted(_: Path, **changes: Any) -> NoReturn:
        said.update(changes)
        raise ClientError("noted")

    monkeypatch.setattr(distillation, "next_options", noted)
    monkeypatch.chdir(tmp_path)
    if settings is not None:
        Path("tuition.toml").write_text(settings)
    with pytest.raises(SystemExit):
        main(["distill", "--from", "run", "--batch", *([] if settings else ["--no-wait"])])
    assert said == {"batch": True, "wait": False}
