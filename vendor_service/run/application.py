"""An application as the vendor and its operators have it: what FastAPI brings by itself is off."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from importlib.metadata import version

from fastapi import FastAPI

from shared.errors import ErrorBody
from vendor_service.http.errors import add_error_handlers


def new_application(
    title: str, description: str, lifespan: Callable[[FastAPI], AbstractAsyncContextManager[None]]
) -> FastAPI:
    """One without routes and layers, which renders errors and documents that it does."""
    app = FastAPI(
        title=title,
        description=description,
        version=version("tuition"),
        docs_url=None,
        redoc_url=None,
        # The vendor has its own traces and metrics; FastAPI would ask for providers of them at every request.
        telemetry={"tracing": False, "metrics": False, "logs": False},
        lifespan=lifespan,
        responses={"4XX": {"model": ErrorBody}, "5XX": {"model": ErrorBody}},
    )
    add_error_handlers(app)
    return app
