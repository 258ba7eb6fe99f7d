"""Where both sides send OpenTelemetry traces: to the endpoint that the environment names."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

# OpenTelemetry's own variables; its SDK reads all others (headers, sampling, compression) by itself.
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")


def open_provider(service: str, environment: Mapping[str, str]) -> "TracerProvider | None":
    """The maker and sender of a service's spans; `None` if they go nowhere, which costs nothing.

    Args:
        service: its name, where `OTEL_SERVICE_NAME` gives no other.
        environment: the variables of the process.

    Raises:
        ModuleNotFoundError: the libraries are missing; the message says what to install.
    """
    if environment.get("OTEL_SDK_DISABLED", "").lower() == "true" or not any(
        map(environment.get, _ENDPOINTS)
    ):
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import SERVICE_NAME, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"{' or '.join(_ENDPOINTS)} is set, but traces need: pip install 'tuition[tracing]'"
        ) from error
    name = environment.get("OTEL_SERVICE_NAME", service)
    provider = TracerProvider(resource=Resource.create({SERVICE_NAME: name}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider
