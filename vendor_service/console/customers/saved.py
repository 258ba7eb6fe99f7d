"""Files for the browser to save."""

from typing import Any

from starlette.responses import Response

from vendor_service.money.spreadsheets import csv_lines


def csv_file(columns: tuple[str, ...], rows: list[dict[str, Any]], name: str) -> Response:
    """Rows for a spreadsheet, which the browser saves."""
    content = "".join(f"{line}\r\n" for line in csv_lines(columns, rows))
    return saved(content, "text/csv; charset=utf-8", name)


def saved(content: str | bytes, media_type: str, name: str) -> Response:
    """A file for the browser to save."""
    headers = {
        "content-disposition": f'attachment; filename="{name}"',
        "cache-control": "no-store",
        "x-content-type-options": "nosniff",
    }
    return Response(content, media_type=media_type, headers=headers)
