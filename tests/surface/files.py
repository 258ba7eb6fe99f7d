"""What is written to disk: the files of runs and comparisons, caches, exports and books, a field a line."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import fields as fields_of
from pathlib import Path
from sqlite3 import connect
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from pydantic import BaseModel
from safetensors import safe_open

from client.cache.archive import SUFFIXES, export_embeddings
from client.cache.cache import EmbeddingCache
from client.cache.tables import StoredEmbedding
from client.learning.student_metadata import StudentMetadata
from client.proofs.evidence import ExportedReceipts
from client.proofs.swap import SwapEvidence
from client.results.comparison_table import Setting, as_csv
from client.results.predictions import predictions_as_csv
from client.runs.config import RunConfig
from client.runs.folder import RunFolder
from client.serving.web_folder import WebStudent
from shared.billing import Invoice
from tests.surface.shapes import fields
from tools.site.run_files import FILES
from vendor_service.database.tables import Account
from vendor_service.money.invoice_formats import as_csv as invoice_as_csv
from vendor_service.run.model_specs import _Table as ModelTable


def lines() -> Iterator[str]:
    """The name of a file comes first on each line."""
    yield from _names()
    for file in FILES:
        schema = file.schema()
        yield from (f"{file.name} {line}" for line in fields(schema, schema))
    schema = RunConfig.model_json_schema()
    yield from (f"config.json {line}" for line in fields(schema, schema))
    for name, model in _models().items():
        schema = model.model_json_schema()
        yield from (f"{name} {line}" for line in fields(schema, schema))
    yield from (
        f"student.safetensors and student.onnx metadata {each.name}" for each in fields_of(StudentMetadata)
    )
    yield from _tables()
    yield from _cache()
    yield from _books()


def _names() -> Iterator[str]:
    """What lies in the folder of a run."""
    for value in vars(RunFolder(Path("run"))).values():
        if isinstance(value, Path) and value != Path("run"):
            yield f"{value}"


def _models() -> dict[str, type[BaseModel]]:
    """JSON and TOML files that one model describes."""
    return {
        "web/student.json": WebStudent,
        "client receipts export": ExportedReceipts,
        "client canary --evidence": SwapEvidence,
        "vendor serve --models [[model]]": ModelTable,
    }


def _tables() -> Iterator[str]:
    """The columns of what is written as CSV."""
    nothing: dict[str, Any] = dict.fromkeys(Invoice.model_fields, 0) | {"lines": []}
    invoice = Invoice.model_construct(None, **nothing)
    setting = Setting.__new__(Setting)
    for name, text in (
        ("answers.csv", predictions_as_csv([])),
        ("table.csv", as_csv([], setting)),
        ("vendor invoice --format csv", invoice_as_csv(invoice)),
    ):
        yield f"{name} {text.splitlines()[0]}"


def _cache() -> Iterator[str]:
    """The tables of a cache, and what is exported of one."""
    with TemporaryDirectory() as folder:
        path = Path(folder, "cache.db")
        with EmbeddingCache(path) as cache:
            cache.add("fp", [StoredEmbedding("text", bytes(32), np.ones(1, np.float32).tobytes())])
            for suffix in SUFFIXES:
                out = Path(folder, f"exported{suffix}")
                export_embeddings(cache, out)
                yield from (f"client cache export *{suffix} {line}" for line in _exported(out))
        with closing(connect(path)) as connection:
            tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
            for (table,) in tables:
                for _, name, kind, needed, _, key in connection.execute(f"PRAGMA table_info({table})"):
                    marks = f"{' not null' if needed else ''}{' key' if key else ''}"
                    yield f"cache table {table}.{name} {kind.lower()}{marks}"


def _exported(file: Path) -> Iterator[str]:
    if file.suffix == ".parquet":
        schema = pq.read_schema(file)
        yield from (f"{each.name}: {each.type}" for each in schema)
        yield from (f"metadata {name.decode()}" for name in schema.metadata if not name.startswith(b"ARROW"))
        return
    with safe_open(file, framework="np") as archive:
        yield from (f"{name}: {archive.get_slice(name).get_dtype()}" for name in archive.keys())  # noqa: SIM118
        yield from (f"metadata {name}" for name in archive.metadata())


def _books() -> Iterator[str]:
    """The columns of the vendor's tables."""
    metadata: Any = Account.metadata
    for table in metadata.sorted_tables:
        for column in table.columns:
            marks = f"{'' if column.nullable else ' not null'}{' key' if column.primary_key else ''}"
            yield f"books table {table.name}.{column.name} {str(column.type).lower()}{marks}"
