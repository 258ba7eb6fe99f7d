"""What the vendor says of itself at /openapi.json is so: schemathesis asks all that the document allows."""

import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from tests.support.vendor_process import VendorProcess
from tests.vendor_service.books import opened_books
from tests.vendor_service.http.local_admin import LocalAdmin
from vendor_service.accounts.keys import Scope

# Left out are those which expect that whatever has the right form is served, and that a vendor knows no more
# reasons to refuse than the document has forms: a fingerprint may be another model's, a list may be empty.
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "missing_required_header",
    "unsupported_method",
    "allow_header_conformance",
    "ignored_auth",
)
SOME = ("--phases", "examples,fuzzing", "--max-examples", "12", "--seed", "1")
ALL = ("--phases", "examples,coverage,fuzzing", "--max-examples", "200")


@pytest.fixture
def admin(tmp_path: Path) -> Iterator[LocalAdmin]:
    with opened_books(f"sqlite:///{tmp_path / 'books.db'}") as books, LocalAdmin(books) as local:
        yield local


def asked_by_schemathesis(
    document: str, secret: str, folder: Path, options: tuple[str, ...]
) -> subprocess.CompletedProcess[str]:
    """Have schemathesis ask what a document allows, with a key or a token."""
    command = [sys.executable, "-m", "schemathesis.cli", "run", document]
    checks = ["--header", f"Authorization: Bearer {secret}", "--checks", ",".join(CHECKS), *options]
    return subprocess.run(
        [*command, *checks, "--continue-on-failure"], cwd=folder, capture_output=True, text=True
    )


@pytest.mark.parametrize("thorough", [SOME, pytest.param(ALL, marks=pytest.mark.slow)], ids=["some", "all"])
def test_every_answer_is_one_that_the_document_tells_of(
    vendor_process: VendorProcess, tmp_path: Path, thorough: tuple[str, ...]
) -> None:
    key = check(vendor_process, tmp_path, thorough)
    assert vendor_process.charges(key).queries


@pytest.mark.slow
def test_so_is_every_answer_about_bulk_jobs(tmp_path: Path) -> None:
    with VendorProcess(tmp_path, "--batch-store", str(tmp_path / "store")) as vendor:
        check(vendor, tmp_path, (*ALL, "--include-path-regex", "^/v1/(files|batches)"))
        assert "Traceback" not in vendor.log.read_text()


def operations(document: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """The operations of a document, by method and path."""
    return [
        (f"{method.upper()} {path}", operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]


def test_operators_routes_have_names_and_examples_and_one_name_for_one_thing(admin: LocalAdmin) -> None:
    document = admin.http.get("/openapi.json").json()
    found = operations(document)
    ids = [operation["operationId"] for _, operation in found]
    assert len(ids) > 40
    assert len(set(ids)) == len(ids)
    assert {"account_create", "money_refund", "accounts_list"} <= set(ids)
    assert all(operation["summary"] and operation["description"] for _, operation in found)
    read = {
        name for schema in document["components"]["schemas"].values() for name in schema.get("properties", {})
    }
    for name, operation in found:
        answer = operation["responses"].get("200", {}).get("content", {}).get("application/json", {})
        assert answer.get("schema", {}).get("type") != "array", f"{name} answers a bare list"
        if "requestBody" not in operation:
            continue
        content = operation["requestBody"]["content"]["application/json"]
        assert content["example"], name
        jsonschema.validate(content["example"], content["schema"])
        # What is sent goes by the name under which it is read, but for what only says how it is done.
        assert set(content["schema"]["properties"]) - read <= {
            "hours",
            "address",
            "new",
            "new_name",
            "prices",
            "percent",
        }, name


def check(vendor: VendorProcess, folder: Path, options: tuple[str, ...]) -> str:
    """Ask all that the document allows; the key that asked."""
    key = vendor.create_key(scopes=frozenset({Scope.ADMIN}))
    asked = asked_by_schemathesis(f"{vendor.url}/openapi.json", key, folder, options)
    assert asked.returncode == 0, asked.stdout[-20_000:] + asked.stderr
    return key
