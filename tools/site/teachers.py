"""The page of the site about teachers: a table of what each API says of itself."""

from collections.abc import Iterable

from client.vendors.declaration import Declaration
from client.vendors.teacher import Teacher, teacher_names

_HEAD = (
    "`--teacher`",
    "address",
    "key",
    "images",
    "inputs a request",
    "requests a minute",
    "models: dimensions, micros an image, micros a text",
    "prices of",
)


def page() -> str:
    """The whole page, in Markdown."""
    found = [each for name in teacher_names() if (each := _declared(name)) is not None]
    rows = [_HEAD, ("---",) * len(_HEAD), *map(_row, found)]
    return "\n".join(
        [
            "# Teachers",
            "",
            "What each API says of itself, as its module in `client/vendors/teachers/` declares it.",
            "",
            *("| " + " | ".join(row) + " |" for row in rows),
            "",
            "Documents that were read:",
            "",
            *_sources(found),
            "",
        ]
    )


def _declared(name: str) -> Declaration | None:
    return None if name in ("python", "open_clip") else Teacher(name).declares()


def _row(declares: Declaration) -> tuple[str, ...]:
    limits = declares.limits
    reduced = "" if declares.most_pixels is None else ", reduced to 512 x 512 pixels"
    models = [
        f"`{name}`: {known.dimensions}"
        + (f", {known.prices.image_micros}, {known.prices.text_micros}" if known.prices else "")
        for name, known in declares.models.items()
    ]
    return (
        f"`{declares.name}`",
        f"`{declares.url}`" if declares.url else "`--vendor`",
        f"`{declares.key_variable}`" if declares.key_variable else "the library's own",
        ", ".join(declares.formats) + reduced,
        "as it says" if declares.states_prices else str(min(limits.max_inputs, declares.batch_queries or 32)),
        str(declares.requests_a_minute or "as it says"),
        "<br>".join(models) or "as it says",
        _dated(declares),
    )


def _dated(declares: Declaration) -> str:
    if declares.states_prices:
        return "now"
    return "by `--price`" if declares.priced_on is None else f"{declares.priced_on:%B %Y}"


def _sources(found: Iterable[Declaration]) -> list[str]:
    return [
        f"- {each.title}, {each.read_on:%Y-%m-%d}: " + ", ".join(f"<{source}>" for source in each.sources)
        for each in found
        if each.read_on is not None
    ]
