"""`client data`: what an image folder holds, and a folder to try. Nothing here spends."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import typer
from pydantic import Field

from client.cli.command import Printed, app, command, print_json, print_line
from client.options.base import Options
from client.options.training import DEFAULT_DATA, DataOptions
from client.progress import Display
from shared.declared import Option

if TYPE_CHECKING:  # numpy and Pillow are not imported before a command needs them
    from client.data.inspection import Inspection

data_app = typer.Typer(
    name="data",
    help="Inspect a folder of images.\n\nExample: client data check icons",
    no_args_is_help=True,
)
app.add_typer(data_app)

# So many of each problem are printed; --json has all.
_SHOWN = 10


class Check(DataOptions, Printed):
    """The options of `client data check`."""

    panel: ClassVar[str | None] = None

    data: Annotated[Path, Option(argument=True, metavar="DIR", env="TUITION_DATA")] = Field(
        default=DEFAULT_DATA, description="The labelled images: a folder, a table or a source."
    )


@command(data_app)
def check(given: Check) -> None:
    """Count domains and classes, and look for what distorts a result; ends with 1 if there is any.

    That is: pictures that are left out (loose in a domain or in the root, of a format that is not read, not
    whole), the same picture in two domains (leakage) or in two classes, copies that a split may part, missing
    class folders, one class only, and differences from PACS, VLCS, Office-Home, TerraIncognita or DomainNet,
    where the folder has the name or the domains of one of them.

    Example: client data check icons
    """
    from client.api import folders

    found = folders.check_folder(given.data, layout=given.layout, columns=given.columns, progress=Display())
    if given.as_json:
        print_json(found.to_json())
    else:
        _print(found)
    if not found.is_sound:
        raise typer.Exit(1)


class Example(Options):
    """The options of `client data example`."""

    folder: Annotated[Path, Option(argument=True, metavar="DIR")] = Field(
        description="A new folder, such as icons."
    )


@command(data_app)
def example(given: Example) -> None:
    """Unpack bundled icons, to try things with: 54 classes in five drawing styles, which are domains.

    Beside them, in DIR-unlabelled, it unpacks illustrations and icons without labels, in a folder for each
    style.

    Example: client data example icons
    """
    from client.api import folders
    from client.data.bundled_set import pool_beside

    folder = folders.unpack_example(given.folder)
    print_line(f"{folder} has labelled icons, laid out as {folder}/<domain>/<class>/<image>.")
    print_line(f"{pool_beside(folder)} has images without labels, laid out by style.")


def _print(found: "Inspection") -> None:
    from client.cli.tables import print_table

    described = found.to_json()
    rows = [
        (domain, sum(counts), sum(map(bool, counts)), min(counts), max(counts))
        for domain, counts in ((domain, found.by_class(domain)) for domain in found.folder.domains)
    ]
    print_table(("domain", "images", "classes", "fewest of a class", "most"), rows)
    total, domains = sum(found.counts.values()), len(found.folder.domains)
    within = f" in {domains} domains" if domains > 1 else ""
    print_line(f"{total} images of {len(found.folder.classes)} classes{within}.")
    if found.repeats:
        print_line(
            f"{found.repeats} are copies within one class and domain: they stay on one side of a split."
        )
    for remark in _remarks(found):
        print_line(remark)
    if found.known and not found.differences:
        print_line(f"This is {found.known.name}, whole.")
    for title, lines in _problems(found, described):
        print_line("")
        print_line(f"{title}: {len(lines)}")
        for line in lines[:_SHOWN]:
            print_line(f"  {line}")
        if len(lines) > _SHOWN:
            print_line(f"  ... and {len(lines) - _SHOWN} more; --json lists all.")
    print_line("")
    if found.is_sound:
        print_line("Nothing wrong was found.")


def _remarks(found: "Inspection") -> Iterator[str]:
    """Print remarks that are worth knowing and distort no result."""
    from client.data.finder import described

    if found.folder.deeper:
        yield f"{found.folder.deeper} of them lie in folders below their class's, and count for it."
    if found.folder.respelled:
        yield (
            f"{len(found.folder.respelled)} folders are spelled in decomposed Unicode, as a Mac writes it; "
            "they are one with those of the same name."
        )
    if found.alike_by_name:
        yield (
            f"{found.alike_by_name} are named <set>__<name> and alike: if these are variants of one drawing, "
            "--group-by-name keeps them on one side of a split."
        )
    if found.left_out:
        yield f"Left out: {described(found.left_out)}; --json lists them."


def _problems(found: "Inspection", described: dict[str, Any]) -> Iterator[tuple[str, list[str]]]:
    """Yield the findings that distort a result, each as a title and its lines."""
    from client.data.names import relative

    root = found.folder.root
    problems = {
        "Pictures that are left out (put each into <domain>/<class>/, as a file of an accepted format)": [
            f"{relative(file.path, root)}: {file.reason}" for file in found.misplaced
        ],
        "Not whole images (they will be skipped)": [
            f"{file['path']}: {file['reason']}" for file in described["unreadable"]
        ],
        "The same picture in different domains (leakage: what is held out is trained on)": [
            " = ".join(group) for group in described["in_several_domains"]
        ],
        "The same picture in different classes": [
            " = ".join(group) for group in described["in_several_classes"]
        ],
        "Copies that a split may part, so that what is held out is trained on (keep one file of each, or "
        "give all of them one `split` in a table)": [
            " = ".join(group) for group in described["may_be_parted"]
        ],
        "Missing class folders (where a domain has no image of a class, leave its folder empty)": (
            described["missing_folders"]
        ),
        "One class only (a student learns to tell classes apart)": (
            described["classes"] if len(described["classes"]) < 2 else []
        ),
        f"Differences from {described['known_as']}": described["differences"],
    }
    for title, lines in problems.items():
        if lines:
            yield title, lines
