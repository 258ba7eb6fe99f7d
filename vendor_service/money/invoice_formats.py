"""Invoices and credit notes for people: as text, as a page of HTML, as PDF, or as CSV for a spreadsheet."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from html import escape

from shared.billing import Billed, CreditNote, Invoice, InvoiceLine, Party
from shared.text import in_html, isolated, visible
from vendor_service.clock import to_datetime
from vendor_service.money.invoices import month_bounds
from vendor_service.money.spreadsheets import csv_lines
from vendor_service.terms import money

_UNIT = 1_000_000


@dataclass(frozen=True)
class Document:
    """An invoice or a credit note as it is laid out, whatever it is printed as.

    `parties` are seller and buyer, line by line, as far as they are known; `facts` are dates and references.
    The first row of the `table` is its heading, the last one the total. `sums` are those in whole cents.
    """

    title: str
    parties: Sequence[tuple[str, Sequence[str]]]
    facts: Sequence[tuple[str, str]]
    table: Sequence[Sequence[str]]
    sums: Sequence[tuple[str, str]]
    notes: Sequence[str]


Bill = Invoice | CreditNote


def document_of(bill: Bill) -> Document:
    """Lay an invoice or a credit note out."""
    if isinstance(bill, CreditNote):
        return _document_of_note(bill)
    invoice = bill
    return Document(
        _title(invoice),
        _sides(invoice),
        _facts(invoice),
        [("", "queries", "each", _amount(invoice)), *_rows(invoice)],
        _sums(invoice, "Invoice total") if invoice.final else [],
        _notes(invoice),
    )


def _document_of_note(note: CreditNote) -> Document:
    charge = f"Refund of charge {note.corrects_seq}" + (f", {note.model}" if note.model else "")
    issued = f" of {note.invoice_issued_on}" if note.invoice_issued_on else ""
    facts = [
        ("Number", note.name),
        ("Date", note.issued_on),
        ("For invoice", f"{note.invoice_number}{issued}, for {note.month}"),
        ("Your reference", note.buyer.reference),
        ("Reference", note.reference),
        ("Account", note.account),
    ]
    return Document(
        f"Credit note {note.name} of {note.account} for invoice {note.invoice_number}",
        _sides(note),
        [(name, str(value)) for name, value in facts if value],
        [("", _amount(note)), (charge, _units(note.total_micros)), ("total", _units(note.total_micros))],
        _sums(note, "Credited"),
        [
            "The account has the amount already: its balance, or its credit, changed with the refund.",
            f"Ledger entry {note.seq} ({note.entry_hash}).",
        ],
    )


def as_text(bill: Bill) -> str:
    """Aligned columns for a terminal."""
    it = document_of(bill)
    widths = [max(map(len, column)) for column in zip(*it.table, strict=True)]
    lines = [it.title, ""]
    for name, party in it.parties:
        lines += [f"{name}: {party[0]}", *(f"  {each}" for each in party[1:]), ""]
    lines += [f"{name}: {value}" for name, value in it.facts]
    lines += [""] if it.facts else []
    lines += [
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip()
        for row in it.table
    ]
    lines += ["", *(f"{name}: {value}" for name, value in it.sums), *it.notes]
    return visible("\n".join(lines), keep="\n")


def as_html(bill: Bill) -> str:
    """A page that needs nothing else."""
    it = document_of(bill)
    sides = "".join(
        f"<section><h2>{name}</h2><address>{'<br>'.join(map(in_html, lines))}</address></section>"
        for name, lines in it.parties
    )
    facts = "".join(f"<dt>{name}</dt><dd>{in_html(value)}</dd>" for name, value in (*it.facts, *it.sums))
    (_, *names), *rows = it.table
    head = "".join(f'<th scope="col">{in_html(name)}</th>' for name in names)
    body = "".join(
        f'<tr><th scope="row">{in_html(row[0])}</th>'
        + "".join(f"<td>{in_html(cell)}</td>" for cell in row[1:])
        + "</tr>"
        for row in rows
    )
    notes = "".join(f"<p>{in_html(note)}</p>" for note in it.notes)
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        f"<title>{escape(isolated(it.title))}</title>"
        '<meta name="viewport" content="width=device-width"><style>'
        "body{font-family:sans-serif;max-width:48rem;margin:2rem auto;padding:0 1rem}"
        "table{border-collapse:collapse;width:100%;margin:1rem 0}td,th{padding:.3rem .6rem;text-align:right}"
        "tr{border-bottom:1px solid #bbb}tr>:first-child{text-align:left;font-weight:normal}"
        "tr:last-child>*{font-weight:bold!important}address{font-style:normal}h2{font-size:1rem}"
        "section{display:inline-block;vertical-align:top;min-width:45%}"
        "dl{display:grid;grid-template-columns:auto 1fr;gap:.2rem 1rem}dd{margin:0}"
        "</style>"
        f"<main><h1>{in_html(it.title)}</h1>{sides}<dl>{facts}</dl>"
        f"<table><thead><tr><td></td>{head}</tr></thead><tbody>{body}</tbody></table>{notes}</main></html>\n"
    )


def as_pdf(bill: Bill) -> bytes:
    """The same as HTML on A4; what was issued is the same file whenever it is asked for."""
    from fpdf import FPDF, FontFace  # it takes a quarter of a second to import

    it = document_of(bill)
    pdf = FPDF(format="A4")
    pdf.set_creation_date(_made_at(bill))
    title = _latin(it.title)
    pdf.set_title(title)
    pdf.set_lang("en")
    pdf.set_auto_page_break(True, margin=25)
    pdf.set_margin(25)
    pdf.add_page()
    pdf.set_font("Helvetica", size=16)
    pdf.multi_cell(0, 10, title, new_x="LMARGIN", new_y="NEXT")
    pdf.ln(4)
    pdf.set_font("Helvetica", size=9)
    top = below = pdf.get_y()
    for column, (name, lines) in enumerate(it.parties):
        pdf.set_xy(25 + 80 * column, top)
        pdf.set_font(style="B")
        pdf.multi_cell(75, 5, name, new_x="LEFT", new_y="NEXT")
        pdf.set_font(style="")
        pdf.multi_cell(75, 5, "\n".join(map(_latin, lines)), align="L")
        below = max(below, pdf.get_y())
    pdf.set_xy(25, below + (4 if it.parties else 0))
    for name, value in it.facts:
        pdf.multi_cell(0, 5, _latin(f"{name}: {value}"), align="L", new_x="LMARGIN", new_y="NEXT")
    pdf.ln(4 if it.facts else 0)
    bold = FontFace(emphasis="BOLD")
    numbers = len(it.table[0]) - 1
    columns = {"col_widths": (5, 2, 2, 3)[: numbers + 1], "text_align": ("LEFT", *["RIGHT"] * numbers)}
    with pdf.table(borders_layout="HORIZONTAL_LINES", headings_style=bold, line_height=6, **columns) as table:
        for number, row in enumerate(it.table, 1):
            table.row([_latin(cell) for cell in row], style=bold if number == len(it.table) else None)
    pdf.ln(4)
    for line in (*(f"{name}: {value}" for name, value in it.sums), *it.notes):
        pdf.multi_cell(0, 5, _latin(line), align="L", new_x="LMARGIN", new_y="NEXT")
    return bytes(pdf.output())


def as_csv(bill: Bill) -> str:
    """A record for each line, then for each of the sums that there is; amounts in micro-units."""
    columns = (
        *("account", "month", "number", "item", "model", "kind", "queries", "unit_micros", "amount_micros"),
        "currency",
    )
    its_own = ("account", "month", "number", "currency")
    common = dict.fromkeys(columns, None) | {name: getattr(bill, name) for name in its_own}
    rows: list[dict[str, object]] = []
    if isinstance(bill, CreditNote):
        credit = {"number": bill.name, "item": "credit note", "model": bill.model}
        rows = [common | credit | {"amount_micros": -bill.total_micros}]
    else:
        rows = [
            common | {"item": "charges"} | {name: getattr(line, name) for name in columns[4:-1]}
            for line in bill.lines
        ]
        sums = {"refunds": -bill.refunds_micros, "adjustments": -bill.adjustments_micros}
        rows += [common | {"item": item, "amount_micros": amount} for item, amount in sums.items() if amount]
        rows.append(common | {"item": "total", "amount_micros": bill.total_micros})
    return "".join(f"{line}\n" for line in csv_lines(columns, rows))


def reference_of(invoice: Invoice) -> str:
    """The reference of a payment: the number of the invoice, and whose it is."""
    return f"{invoice.account}-{invoice.number}"


def _title(invoice: Invoice) -> str:
    number = "" if invoice.number is None else f" {invoice.number}"
    title = f"Invoice{number} of {invoice.account} for {invoice.month}"
    return title + ("" if invoice.final else " (not yet final)")


def _made_at(bill: Bill) -> datetime:
    """The date of the file: that of a credit note, or the end of an invoice's month."""
    if isinstance(bill, CreditNote) and bill.issued_on is not None:
        return datetime.combine(bill.issued_on, time(), UTC)
    return to_datetime(month_bounds(bill.month)[1])


def _amount(bill: Billed) -> str:
    return "amount" if bill.currency is None else f"amount ({bill.currency})"


def _sides(bill: Billed) -> list[tuple[str, Sequence[str]]]:
    sides = (("Seller", _address(bill.seller)), ("Buyer", _address(bill.buyer)))
    return [(name, lines) for name, lines in sides if lines]


def _address(party: Party) -> list[str]:
    """The lines of a party, as far as they are known."""
    place = " ".join(filter(None, (party.postcode, party.city)))
    vat = party.tax_id and f"VAT {party.tax_id}"
    lines = (party.legal_name, party.street, place, party.country, vat, party.email)
    return [each for each in lines if each]


def _facts(invoice: Invoice) -> list[tuple[str, str]]:
    begin, end = (to_datetime(each) for each in month_bounds(invoice.month))
    last = end - timedelta(days=1)
    told = [
        ("Number", invoice.number),
        ("Date", invoice.issued_on),
        ("Period", f"{begin:%Y-%m-%d} to {last:%Y-%m-%d}, UTC"),
        ("Due", invoice.due_on if invoice.due_micros else None),
        ("Your reference", invoice.buyer.reference),
        ("Account", invoice.account),
    ]
    return [(name, str(value)) for name, value in told if value]


def _sums(bill: Billed, name: str) -> list[tuple[str, str]]:
    """The total in whole cents, and the tax in it."""
    unit = "" if bill.currency is None else f" {bill.currency}"
    earlier = "credit notes" if isinstance(bill, CreditNote) else "months"
    carried = f" (with the rest of earlier {earlier})" if bill.brought_micros else ""
    told = [(f"{name}, in what a bank can pay{carried}", f"{money(bill.billed_micros)}{unit}")]
    if bill.tax_basis_points:
        rate = f"{bill.tax_basis_points / 100:g}%"
        told += [
            (f"of which {rate} tax", f"{money(bill.tax_micros)}{unit}"),
            ("without tax", f"{money(bill.billed_micros - bill.tax_micros)}{unit}"),
        ]
    elif bill.buyer.taxed == "reverse-charge":
        told.append(("Tax", "reverse charge: the buyer owes it"))
    elif bill.buyer.taxed == "exempt":
        told.append(("Tax", "exempt"))
    return told


def _rows(invoice: Invoice) -> list[tuple[str, str, str, str]]:
    rows = [
        (label_of(invoice, line), str(line.queries), money(line.unit_micros), _units(line.amount_micros))
        for line in invoice.lines
    ]
    if invoice.refunds_micros:
        rows.append(("refunds", "", "", _units(-invoice.refunds_micros)))
    rows += [
        (f"adjustment: {each.reason}", "", "", _units(-each.amount_micros)) for each in invoice.adjustments
    ]
    return [*rows, ("total", "", "", _units(invoice.total_micros))]


def label_of(invoice: Invoice, line: InvoiceLine) -> str:
    """The model and kind, and the fingerprint where one name stood for several models in this month."""
    fingerprints = {each.model_fingerprint for each in invoice.lines if each.model == line.model}
    apart = f" ({line.model_fingerprint})" if len(fingerprints) > 1 else ""
    return f"{line.model}{apart}, {line.kind}{', in bulk jobs' if line.batch else ''}"


def _notes(invoice: Invoice) -> list[str]:
    notes = []
    if invoice.credited_micros:
        notes.append(f"Given back during the month by credit notes: {_units(invoice.credited_micros)}")
    if invoice.top_ups_micros:
        notes.append(f"Paid in during the month: {_units(invoice.top_ups_micros)}")
    if invoice.payments_micros:
        notes.append(f"Payments received during the month: {_units(invoice.payments_micros)}")
    if invoice.balance_due_micros is not None:
        notes.append(f"Balance due at the end of the month: {_units(invoice.balance_due_micros)}")
    notes += to_pay(invoice)
    if invoice.final and invoice.due_micros and invoice.seller.iban:
        bic = f", {invoice.seller.bic}" if invoice.seller.bic else ""
        notes.append(f"Pay to {invoice.seller.iban}{bic}, with the reference {reference_of(invoice)}.")
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


def _latin(text: str) -> str:
    """Replace by question marks what the standard fonts of PDF cannot show."""
    return visible(text).encode("latin-1", "replace").decode("latin-1")


def _units(micros: int) -> str:
    """An amount in units of the currency, to the last millionth."""
    sign, size = "-" if micros < 0 else "", abs(micros)
    return f"{sign}{size // _UNIT}.{size % _UNIT:06d}"
