"""`client canary`: whether the vendor still sells the model that it sold."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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
from client.errors import ClientError, UsageError, unwritable
from client.paths import obstacle, replace_text
from client.progress import Display

if TYPE_CHECKING:  # what signatures are checked with takes long to import
    from client.proofs.swap import SwapEvidence


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
    if evidence is not None:
        check_evidence(evidence)
    found = api.canary(options, confirm=on_terminal(), progress=Display())
    is_written, error = write_evidence(evidence, found.evidence)
    if as_json:
        print_json(found.to_json() | {"evidence": str(evidence) if is_written else None})
    else:
        print_canary(found)
    if error is not None:
        raise error
    if found.swapped:
        raise typer.Exit(1)


def check_evidence(path: Path) -> None:
    """Refuse, before anything is bought, a file that could not be written.

    Raises:
        UsageError: its folder does not exist or takes no files, or it is a folder itself.
    """
    if why := obstacle(path):
        raise UsageError(f"--evidence cannot be written: {why}.")


def write_evidence(path: Path | None, evidence: "SwapEvidence | None") -> tuple[bool, ClientError | None]:
    """Write the file, if there is one to write; returns whether it is written, and why it cannot be."""
    if path is None or evidence is None:
        return False, None
    try:
        replace_text(path, evidence.model_dump_json(indent=1) + "\n")
    except OSError as error:
        return False, unwritable(path, error)
    return True, None
