"""The span of each request, with the steps that it took."""

import time

from starlette.types import Scope

from shared.serving.middleware import Trace
from vendor_service.observability.timing import Step, Timing
from vendor_service.observability.tracing import Traces

_PROBES = ("/livez", "/readyz", "/metrics")
_SERVERS_FAULT = 500


def spans_to(traces: Traces) -> Trace:
    """What makes spans of requests that are over, for `traces`."""

    def trace(scope: Scope, status: int, began: int) -> None:
        _add(traces, scope, status, began)

    return trace


def _add(traces: Traces, scope: Scope, status: int, began: int) -> None:
    route, method, state = getattr(scope.get("route"), "path", None), scope["method"], scope["state"]
    if route is None or route in _PROBES:
        return
    attributes: dict[str, str | int] = {
        "http.request.method": method,
        "http.route": route,
        "http.response.status_code": status,
        "tuition.request_id": state["request_id"],
    }
    if "error_code" in state:
        attributes["error.type"] = str(state["error_code"])
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
    timing: Timing = state.get("timing") or Timing()
    request = Step(f"{method} {route}", began, time.time_ns())
    traces.add(request, headers, attributes, timing.steps, failed=status >= _SERVERS_FAULT)
