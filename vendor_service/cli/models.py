"""`vendor models`: what can be served, and by what it computes on this machine."""

import logging
from pathlib import Path
from typing import Annotated

import typer

from shared.threads import share_processors
from vendor_service.cli.books import AsJson
from vendor_service.cli.printing import print_json, print_rows
from vendor_service.run.settings import DtypeChoice, Settings

app = typer.Typer()


@app.callback(invoke_without_command=True)
def models(
    context: typer.Context,
    check: Annotated[
        Path | None,
        typer.Option(help="Look whether a file of models is right, and list those instead; loads none."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List what can be served: the bundled model, and open_clip's names with their pretrained tags.

    Example: vendor models | grep ViT-B-16
    """
    if context.invoked_subcommand is not None:
        return
    if check is not None:
        _show_specs(check, as_json=as_json)
        return
    from vendor_service.encoder.sources import list_models

    found = [{"model": name, "pretrained": tag} for name, tag in list_models()]
    if as_json:
        print_json(found)
        return
    for each in found:
        print(f"--model {each['model']}" + (f"/{each['pretrained']}" if each["pretrained"] else ""))


@app.command("measure")
def measure(
    model: Annotated[
        str | None, typer.Option(help="As for `vendor serve`; without it, the models that it would serve.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda, or several: cuda:0,cuda:1")] = None,
    dtype: Annotated[DtypeChoice | None, typer.Option(help="Arithmetic of the model.")] = None,
    again: Annotated[
        bool, typer.Option("--again", help="Measure anew what is remembered; another dtype may be chosen.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Print by what a model computes fastest on this machine; `vendor serve` takes it from then on.

    Example: vendor models measure --model ViT-B-16/openai
    """
    share_processors()
    from vendor_service.run.factory import measured
    from vendor_service.run.model_specs import find_specs

    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    settings = Settings.read(model=model, device=device, dtype=dtype)
    rows = []
    for spec in find_specs(settings):
        choice = measured(spec, anew=again)
        for each in choice.timings:
            row = {"model": spec.id, "taken": each in choice.taken, **each.model_dump()}
            rows.append(row | {"measured_at": choice.measured_at.isoformat()})
        if not choice.timings:
            typer.echo(f"{spec.id}: {choice.dtype}; nothing was measured", err=True)
    if as_json:
        print_json(rows)
        return
    print_rows([{name: _cell(name, value) for name, value in row.items()} for row in rows])


def _cell(name: str, value: object) -> object:
    if name == "taken":
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4f}" if name == "cosine" else f"{value:.1f}"
    return value


def _show_specs(file: Path, *, as_json: bool) -> None:
    from vendor_service.run.model_specs import find_specs

    found = find_specs(Settings.read().model_copy(update={"models": file}))
    rows = [
        {
            "model": each.id,
            "default": each.default,
            "source": each.source.label,
            "device": each.device,
            "dtype": each.dtype,
            "deprecated_at": None if each.deprecated_at is None else each.deprecated_at.isoformat(),
            "sunset_at": None if each.sunset_at is None else each.sunset_at.isoformat(),
        }
        for each in found
    ]
    (print_json if as_json else print_rows)(rows)
