"""`client canary`: whether the vendor still sells the model that it sold."""

from pathlib import Path
from typing import Annotated

import typer

from client.cli.confirm import on_terminal
from client.cli.options import (
    DEFAULT_VENDOR,
    CacheOption,
    JsonOption,
    KeyFileOption,
    ModelOption,
    VendorOption,
    YesOption,
    print_json,
)
from client.errors import unwritable
from client.progress import Display


def canary(
    images: Annotated[
        list[str] | None,
        typer.Option("--images", help="Images that were bought before: a file, a folder or a pattern."),
    ] = None,
    text: Annotated[list[str] | None, typer.Option("--text", help="A text that was bought before.")] = None,
    count: Annotated[
        int, typer.Option("--count", min=1, max=1000, help="How many inputs to ask again, and pay for.")
    ] = 8,
    evidence: Annotated[
        Path | None,
        typer.Option(
            "--evidence",
            metavar="FILE",
            help="File to write if the model was swapped: it proves this to others.",
        ),
    ] = None,
    yes: YesOption = False,
    vendor: VendorOption = DEFAULT_VENDOR,
    model: ModelOption = None,
    api_key_file: KeyFileOption = None,
    cache: CacheOption = None,
    as_json: JsonOption = False,
) -> None:
    """Ask a few known inputs again: does the fingerprint still stand for the same model? Ends with 1 if not.

    Inputs are drawn at random from those given that the cache knows, and then from the vendor's signed card.

    Example: client canary --images photos --count 8
    """
    from client.api import canary as api
    from client.api.options import CanaryOptions
    from client.cli.proofs import print_canary

    options = CanaryOptions(
        texts=tuple(text or ()), images=tuple(images or ()), count=count, yes=yes,
        vendor=vendor, model=model, api_key_file=api_key_file, cache=cache,
    )  # fmt: skip
    found = api.canary(options, confirm=on_terminal(), progress=Display())
    if evidence is not None and found.evidence is not None:
        try:
            evidence.write_text(found.evidence.model_dump_json(indent=1) + "\n", encoding="utf-8")
        except OSError as error:
            raise unwritable(evidence, error) from error
    if as_json:
        print_json(found.to_json() | {"evidence": None if evidence is None else str(evidence)})
    else:
        print_canary(found)
    if found.swapped:
        raise typer.Exit(1)
