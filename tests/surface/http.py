"""What is spoken over HTTP: every route of the vendor, of its operators' port and of a deployed student.

Each line begins with the server and the route. Metrics stand here too, for a server has to run to have them.
"""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import patch

import httpx
import numpy as np
from prometheus_client import CollectorRegistry
from prometheus_client.metrics import MetricWrapperBase
from starlette.applications import Starlette
from starlette.routing import BaseRoute, Mount, Route
from starlette.testclient import TestClient

from client.learning.student_metadata import StudentMetadata
from client.serving.app import LIMITS, create_app
from client.serving.classify import ClassifyRequest
from client.serving.hosts import HostCheck
from client.serving.keys import Keys
from client.serving.student import ServedStudent, StudentCard
from shared.errors import ErrorBody
from tests.surface.shapes import Schema, fields, shape
from tests.vendor_service.console.customers.people import signed_in
from tests.vendor_service.given_settings import GivenSettings
from tests.vendor_service.local_vendor import LocalVendor, image_file
from vendor_service.run.admin import create_admin_app

_METHODS = ("get", "post", "put", "patch", "delete")


def lines() -> Iterator[str]:
    """The routes with their requests and answers, then the metrics."""
    with TemporaryDirectory() as folder, _registered() as collectors:
        vendor = LocalVendor(Path(folder), batch_store=str(Path(folder, "store")))  # which need not start
        yield from _documented("vendor", vendor.app.openapi())
        yield from _routes("vendor", vendor.app.routes)
        yield from _spreadsheets(vendor)
        yield from _metrics("vendor", collectors)
        admin = create_admin_app(GivenSettings(database_url=vendor.database_url), vendor.clock)
        yield from _documented("operators", admin.openapi())
        yield from _routes("operators", admin.routes)
        vendor.close()
    yield from _student()


def _documented(server: str, document: Mapping[str, Any]) -> Iterator[str]:
    """What an OpenAPI document says of each route."""
    for path, methods in document["paths"].items():
        for method in _METHODS:
            if method in methods:
                yield from _operation(f"{server} {method.upper()} {path}", methods[method], document)


def _operation(route: str, told: Mapping[str, Any], document: Mapping[str, Any]) -> Iterator[str]:
    for each in told.get("parameters", []):
        required = " required" if each.get("required") else ""
        name = f"{each['in']} {each['name']}"
        yield from (f"{route} {line}{required}" for line in fields(each.get("schema", {}), document, name))
    for scheme in told.get("security", []):
        yield f"{route} needs {', '.join(scheme) or 'nothing'}"
    for kind, content in told.get("requestBody", {}).get("content", {}).items():
        yield from _body(f"{route} body {kind}", content, document)
    for status, answer in told["responses"].items():
        yield from (f"{route} {status} header {name}" for name in answer.get("headers", {}))
        content = answer.get("content", {})
        if status in ("4XX", "5XX") and _is_error(content):
            continue  # as every route has it
        for kind, body in content.items() or {"nothing": {}}.items():
            yield from _body(f"{route} {status} {kind}", body, document)


def _is_error(content: Mapping[str, Any]) -> bool:
    schema = content.get("application/json", {}).get("schema", {})
    return str(schema.get("$ref", "")).endswith("/ErrorBody")


def _body(start: str, content: Mapping[str, Any], document: Schema) -> Iterator[str]:
    schema = content.get("schema")
    yield from (f"{start} {line}" for line in fields(schema, document)) if schema else [start]


def _routes(server: str, routes: Sequence[BaseRoute], below: str = "") -> Iterator[str]:
    """Every path with its methods, those too that no document has."""
    for route in routes:
        if isinstance(route, Mount):
            yield from _routes(server, route.routes, f"{below}{route.path}")
        elif isinstance(route, Route):
            methods = route.methods or {"ANY"}
            yield from (f"{server} {method} {below}{route.path}" for method in methods - {"HEAD"})


def _spreadsheets(vendor: LocalVendor) -> Iterator[str]:
    """The columns of what the console has for spreadsheets."""
    vendor.http = cast(Any, TestClient(vendor.app, "http://127.0.0.1", follow_redirects=False))
    visit = signed_in(vendor, vendor.key())
    for path in ("/usage.csv", "/ledger.csv"):
        yield f"vendor GET /console{path} 200 text/csv {visit.page(path).splitlines()[0]}"


def _student() -> Iterator[str]:
    with _registered() as collectors:
        app = create_app(_served(), Keys(None), HostCheck(()), threads=1)
        yield from _routes("student", app.routes)
        yield from _metrics("student", collectors)
    for start, schema in (
        ("student POST /classify body application/json", ClassifyRequest.model_json_schema()),
        ("student GET /v1/student 200 application/json", StudentCard.model_json_schema(mode="serialization")),
        ("every server 4XX and 5XX application/json", ErrorBody.model_json_schema(mode="serialization")),
    ):
        yield from (f"{start} {line}" for line in fields(schema, schema))
    yield from asyncio.run(_answers(app))


async def _answers(app: Starlette) -> list[str]:
    """The shapes of a student's answers that no schema describes."""
    found = []
    transport = httpx.ASGITransport(app)
    async with app.router.lifespan_context(app), httpx.AsyncClient(transport=transport) as http:
        files = [("image", ("a.png", image_file())), ("image", ("b.png", b"none"))]
        classified = await http.post("http://student/classify", data={"on_error": "skip"}, files=files)
        found += [f"student POST /classify 200 application/json {line}" for line in shape(classified.json())]
        for path in ("/v1/deferral", "/livez", "/readyz"):
            told = (await http.get(f"http://student{path}")).json()
            found += [f"student GET {path} 200 application/json {line}" for line in shape(told)]
    return found


def _served() -> ServedStudent:
    """A student that knows two classes and computes nothing."""
    classes = ["circle", "square"]
    classifier = SimpleNamespace(
        classes=classes,
        side=32,
        metadata=StudentMetadata(),
        probabilities=lambda pixels: np.full((len(pixels), 2), 0.5, np.float32),
    )
    card = StudentCard(name="student", fingerprint="0" * 64, classes=classes, image_size=32, method=None,
                       backbone=None, expected_accuracy=None, limits=LIMITS)  # fmt: skip
    return ServedStudent(cast(Any, classifier), card)


@contextmanager
def _registered() -> Iterator[list[Any]]:
    """What is registered meanwhile for Prometheus to ask."""
    found: list[Any] = []
    register = CollectorRegistry.register

    def noted(registry: CollectorRegistry, collector: Any) -> None:
        found.append(collector)
        register(registry, collector)

    with patch.object(CollectorRegistry, "register", noted):
        yield found


def _metrics(server: str, collectors: Sequence[Any]) -> Iterator[str]:
    """Names, types and labels of the project's own series."""
    for each in collectors:
        if isinstance(each, MetricWrapperBase):
            found = [(each._name, each._type, each._labelnames)]
        else:
            families = each.collect()
            found = [(one.name, one.type, getattr(one, "_labelnames", ())) for one in families]
        for name, kind, labels in found:
            if name.startswith("tuition_"):
                yield f"{server} metric {name} {kind}{{{', '.join(labels)}}}"
