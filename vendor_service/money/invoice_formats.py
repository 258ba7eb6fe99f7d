"""An invoice for people: as text, as a page of HTML, as PDF, or as CSV for a spreadsheet."""

from html import escape

from shared.billing import CreditNote, Invoice, InvoiceLine
from shared.text import in_html, isolated, visible
from vendor_service.clock import to_datetime
from vendor_service.money.invoices import month_bounds
from vendor_service.money.spreadsheets import csv_lines
from vendor_service.terms import money

_UNIT = 1_000_000


def as_text(invoice: Invoice) -> str:
    """Aligned columns for a terminal."""
    rows = _table(invoice)
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *(row[i].rjust(widths[i]) for i in (1, 2, 3))]).rstrip()
        for row in rows
    ]
    return visible("\n".join([_title(invoice), "", *lines, "", *_notes(invoice)]), keep="\n")


def as_html(invoice: Invoice) -> str:
    """A page that needs nothing else."""
    body = "".join(
        "<tr>" + "".join(f"<td>{in_html(cell)}</td>" for cell in row) + "</tr>" for row in _rows(invoice)
    )
    notes = "".join(f"<p>{in_html(note)}</p>" for note in _notes(invoice))
    title, amount = in_html(_title(invoice)), in_html(_amount(invoice))
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        f"<title>{escape(isolated(_title(invoice)))}</title>"
        "<style>body{font-family:sans-serif;max-width:48rem;margin:2rem auto}table{border-collapse:collapse}"
        "td,th{padding:.2rem .8rem;text-align:right}td:first-child{text-align:left}</style>"
        f"<h1>{title}</h1><table>"
        f"<tr><th></th><th>queries</th><th>each</th><th>{amount}</th></tr>"
        f"{body}</table>{notes}</html>\n"
    )


def as_pdf(invoice: Invoice) -> bytes:
    """The same as HTML on A4; a final invoice is the same file whenever it is asked for."""
    from fpdf import FPDF, FontFace  # it takes a quarter of a second to import

    pdf = FPDF(format="A4")
    pdf.set_creation_date(to_datetime(month_bounds(invoice.month)[1]))
    title = _latin(_title(invoice))
    pdf.set_title(title)
    pdf.set_lang("en")
    pdf.set_auto_page_break(True, margin=25)
    pdf.set_margin(25)
    pdf.add_page()
    pdf.set_font("Helvetica", size=16)
    pdf.multi_cell(0, 10, title, new_x="LMARGIN", new_y="NEXT")
    pdf.ln(4)
    pdf.set_font("Helvetica", size=9)
    bold = FontFace(emphasis="BOLD")
    columns = {"col_widths": (5, 2, 2, 3), "text_align": ("LEFT", "RIGHT", "RIGHT", "RIGHT")}
    with pdf.table(borders_layout="HORIZONTAL_LINES", headings_style=bold, line_height=6, **columns) as table:
        rows = _table(invoice)
        for number, row in enumerate(rows, 1):
            table.row([_latin(cell) for cell in row], style=bold if number == len(rows) else None)
    pdf.ln(6)
    for note in _notes(invoice):
        pdf.multi_cell(0, 5, _latin(note), align="L", new_x="LMARGIN", new_y="NEXT")
    return bytes(pdf.output())


def as_csv(invoice: Invoice) -> str:
    """A record for each line, then for each of the sums that there is; amounts in micro-units."""
    columns = (
        *("account", "month", "number", "item", "model", "kind", "queries", "unit_micros", "amount_micros"),
        "currency",
    )
    its_own = ("account", "month", "number", "currency")
    common = dict.fromkeys(columns, None) | {name: getattr(invoice, name) for name in its_own}
    rows: list[dict[str, object]] = [
        common | {"item": "charges"} | {name: getattr(line, name) for name in columns[4:-1]}
        for line in invoice.lines
    ]
    sums = {"refunds": -invoice.refunds_micros, "adjustments": -invoice.adjustments_micros}
    rows += [common | {"item": item, "amount_micros": amount} for item, amount in sums.items() if amount]
    rows.append(common | {"item": "total", "amount_micros": invoice.total_micros})
    return "".join(f"{line}\n" for line in csv_lines(columns, rows))


def _title(invoice: Invoice) -> str:
    number = "" if invoice.number is None else f" {invoice.number}"
    title = f"Invoice{number} of {invoice.account} for {invoice.month}"
    return title + ("" if invoice.final else " (not yet final)")


def _amount(invoice: Invoice) -> str:
    return "amount" if invoice.currency is None else f"amount ({invoice.currency})"


def _table(invoice: Invoice) -> list[tuple[str, str, str, str]]:
    """The heading, and a row a line and sum."""
    return [("", "queries", "each", _amount(invoice)), *_rows(invoice)]


def _rows(invoice: Invoice) -> list[tuple[str, str, str, str]]:
    rows = [
        (_what(invoice, line), str(line.queries), money(line.unit_micros), _units(line.amount_micros))
        for line in invoice.lines
    ]
    if invoice.refunds_micros:
        rows.append(("refunds", "", "", _units(-invoice.refunds_micros)))
    rows += [
        (f"adjustment: {each.reason}", "", "", _units(-each.amount_micros)) for each in invoice.adjustments
    ]
    return [*rows, ("total", "", "", _units(invoice.total_micros))]


def _what(invoice: Invoice, line: InvoiceLine) -> str:
    """The model and kind, and the fingerprint where one name stood for several models in this month."""
    fingerprints = {each.model_fingerprint for each in invoice.lines if each.model == line.model}
    apart = f" ({line.model_fingerprint})" if len(fingerprints) > 1 else ""
    return f"{line.model}{apart}, {line.kind}{', in bulk jobs' if line.batch else ''}"


def _notes(invoice: Invoice) -> list[str]:
    notes = [_credited(each) for each in invoice.credit_notes]
    if invoice.top_ups_micros:
        notes.append(f"Paid in during the month: {_units(invoice.top_ups_micros)}")
    if invoice.payments_micros:
        notes.append(f"Payments received during the month: {_units(invoice.payments_micros)}")
    if invoice.balance_due_micros is not None:
        notes.append(f"Balance due at the end of the month: {_units(invoice.balance_due_micros)}")
    notes += to_pay(invoice)
    if invoice.first_seq is None:
        return [*notes, "The ledger has no entries of this month."]
    first, last = (
        f"{seq} ({hash_})"
        for seq, hash_ in (
            (invoice.first_seq, invoice.first_hash),
            (invoice.last_seq, invoice.last_hash),
        )
    )
    return [*notes, f"Ledger entries {first} to {last}."]


def to_pay(invoice: Invoice) -> list[str]:
    """What is to be paid, in words; a draft asks for nothing yet."""
    if not invoice.final:
        return []
    if invoice.balance_due_micros is None:
        return ["Nothing to pay: it was paid from the credit."]
    unit = "" if invoice.currency is None else f" {invoice.currency}"
    if not invoice.due_micros and not invoice.carried_micros:
        return ["Nothing to pay."]
    said = [f"Amount to pay: {money(invoice.due_micros)}{unit}"]
    if invoice.carried_micros:
        said.append(
            "The balance is rounded down to what a bank can pay. The rest of "
            f"{_units(invoice.carried_micros)} is carried to the next invoice."
        )
    return said


def _credited(note: CreditNote) -> str:
    number = "" if note.number is None else f" {note.number}"
    return f"Credit note: {_units(note.amount_micros)} of the refunds are of invoice{number} for {note.month}"


def _latin(text: str) -> str:
    """Replace by question marks what the standard fonts of PDF cannot show."""
    return visible(text).encode("latin-1", "replace").decode("latin-1")


def _units(micros: int) -> str:
    """An amount in units of the currency, to the last millionth."""
    sign, size = "-" if micros < 0 else "", abs(micros)
    return f"{sign}{size // _UNIT}.{size % _UNIT:06d}"
