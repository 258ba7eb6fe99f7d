"""Hosts and origins: no web page from elsewhere has a browser ask a student, under whatever name."""

import httpx
import pytest

from client.serving.hosts import HostCheck
from tests.client.serving.test_serve import ask, error_of, picture
from tests.support.student_process import StudentProcess

_KEYED = HostCheck((), any_host=True)
_NAMED = HostCheck(("shop.example",))


def _refused(check: HostCheck, method: str, **headers: str) -> str | None:
    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    error = check.refusal({"type": "http", "method": method, "headers": raw})
    return None if error is None else error.param


@pytest.mark.parametrize(
    "host",
    [
        *("127.0.0.1:8080", "[::1]:8080", "192.168.1.5", "localhost:8080", "app.localhost", "student:80"),
        *("shop.example", "SHOP.example.:443"),
    ],
)
def test_a_server_answers_by_its_addresses_and_names(host: str) -> None:
    assert _refused(_NAMED, "GET", host=host) is None
    assert _refused(_NAMED, "POST", host=host) is None  # a program sends no origin


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8080", "shop.example.evil.example", "[x", ""])
def test_a_name_that_a_stranger_had_lead_here_is_none_of_its_own(host: str) -> None:
    for method in ("GET", "POST"):
        assert _refused(_NAMED, method, host=host) == "host"
    assert _refused(_KEYED, "GET", host=host) is None  # whoever asks by it has no key


def test_a_page_may_post_only_to_its_own_host() -> None:
    at = {"host": "127.0.0.1:80"}
    for origin, refused in (("http://127.0.0.1:80", None), ("http://127.0.0.1:8000", "origin")):
        assert _refused(HostCheck(("127.0.0.1",)), "POST", origin=origin, **at) == refused
        assert _refused(_KEYED, "POST", origin=origin, **at) == refused
        assert _refused(_NAMED, "GET", origin=origin, **at) is None


def test_a_foreign_page_gets_nothing_of_a_served_student(http: httpx.Client, served: StudentProcess) -> None:
    for headers in ({"origin": "https://evil.example"}, {"host": f"evil.example:{served.port}"}):
        files = [("image", ("a.png", picture(), "image/png"))]
        answer = http.post("/classify", files=files, headers=headers)
        assert error_of(answer) == ("invalid_request", *headers)
    answer = http.get("/v1/student", headers={"host": "evil.example"})
    assert error_of(answer) == ("invalid_request", "host")
    assert "--allow-host" in answer.json()["error"]["message"]
    assert ask(http, picture()).status_code == 200
