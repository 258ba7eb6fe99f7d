"""`client trust`: shows what a folder's tuition.toml may spend and send, and trusts it after a yes."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer.main
from pydantic import Field
from typer.core import TyperGroup

from client.cli.command import Printed, app, command, on_terminal, print_json, print_line
from client.cli.settings import SETTINGS_FILE, Settings, read_settings
from client.cli.trusted import changed, is_trusted, leads_outside, records, revoke, trust
from client.errors import UsageError
from client.paths import is_folder
from shared.declared import Option


class Trust(Printed):
    """The options of `client trust`."""

    folder: Annotated[Path, Option(argument=True, typed=True, metavar="FOLDER")] = Field(
        default=Path(), description="The folder, or its tuition.toml."
    )
    yes: Annotated[bool, Option(typed=True)] = Field(
        default=False, description="Trust it without asking, for a script that knows the file."
    )
    revoke: Annotated[bool, Option(typed=True)] = Field(default=False, description="Stop trusting it.")
    all_: Annotated[bool, Option(name="list", typed=True)] = Field(
        default=False, description="List the files that are trusted."
    )


@command(app, name="trust")
def trust_(given: Trust) -> None:
    """Show what the tuition.toml of a folder may spend and send, and trust it after a yes.

    Until then its options count only where they spend and send nothing, and name no file and no address; what
    is typed always counts. A file that changes is trusted no longer. Which files are trusted is kept in your
    own configuration folder.

    Example: client trust
    """
    path = given.folder / SETTINGS_FILE if is_folder(given.folder) else given.folder
    if given.all_:
        _list(as_json=given.as_json)
    elif given.revoke:
        was = revoke(path)
        print_json({"file": str(path), "revoked": was}) if given.as_json else print_line(
            f"{path} is no longer trusted." if was else f"{path} was not trusted."
        )
    else:
        _agree(_read(path), given)


def _list(*, as_json: bool) -> None:
    found = list(records())
    if as_json:
        print_json([{"file": each.path, "sha256": each.sha256} for each in found])
    else:
        for each in found:
            print_line(each.path)


def _read(path: Path) -> Settings:
    program = typer.main.get_command(app)
    assert isinstance(program, TyperGroup)
    settings = read_settings(program, path)
    if settings is None:
        raise UsageError(f"There is no {path}. `client init` writes one.")
    return settings


def _agree(settings: Settings, given: Trust) -> None:
    """Show a file, and trust it if somebody agrees.

    Raises:
        UsageError: nobody does.
    """
    needs = bool(settings.unsafe) and not is_trusted(settings)
    if not given.as_json:
        for line in _lines(settings):
            print_line(line)
    if needs and given.yes:
        trust(settings)
    elif needs and not given.as_json:
        ask = on_terminal()
        if ask is None:
            raise UsageError("Add --yes to trust it. It is not trusted.")
        if not ask("Trust it?"):
            raise UsageError("It is not trusted.")
        trust(settings)
    if given.as_json:
        print_json(_described(settings))
    elif settings.unsafe:
        print_line(f"{settings.path} is trusted until it changes.")


def _lines(settings: Settings) -> Iterator[str]:
    if not settings.unsafe:
        yield f"{settings.path} sets nothing that has to be trusted."
        return
    outside, before = leads_outside(settings), changed(settings)
    yield f"{settings.path} sets:"
    # Whoever is asked about a long file sees last whom it names.
    for key, value in sorted(settings.unsafe.items(), key=lambda each: "vendor" in each[0]):
        remarks = ["outside this folder"] if key in outside else []
        if key in before:
            remarks.append(
                "new" if before[key] is None else f"was {_written(before[key])} when you trusted it"
            )
        yield f"  {key} = {_written(value, plain='vendor' in key)}" + (
            f"  <- {', '.join(remarks)}" if remarks else ""
        )
    yield from (f"  {key} is gone" for key in before if key not in settings.unsafe)
    yield (
        "Commands that are given there use these: they send images, texts and your key to the vendor, and "
        "buy within the limits, even where the vendor charges nothing."
    )


def _described(settings: Settings) -> dict[str, Any]:
    return {
        "file": str(settings.path),
        "sha256": settings.sha256,
        "trusted": is_trusted(settings),
        "sets": settings.unsafe,
        "outside": leads_outside(settings),
        "changed": sorted(changed(settings)),
    }


def _written(value: object, *, plain: bool = False) -> str:
    """A value as a file has it; `plain` shows letters of other scripts, which look like these, as codes."""
    return json.dumps(value, ensure_ascii=plain)
