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
        *("127.0.0.1:8080", "[::1]:8080", "192.168.1.5", "localhost:8080", "app.localhost", "student:80", ""),
        *("shop.example", "SHOP.example.:443"),
    ],
)
def test_a_server_answers_by_its_addresses_and_names(host: str) -> None:
    assert _refused(_NAMED, "GET", host=host) is None
    assert _refused(_NAMED, "POST", host=host) is None  # a program sends no origin


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8080", "shop.example.evil.example", "[x"])
def test_a_name_that_a_stranger_had_lead_here_is_none_of_its_own(host: str) -> None:
    for method in ("GET", "POST"):
        assert _refused(_NAMED, method, host=host) == "host"
    assert _refused(_KEYED, "GET", host=host) is None  # whoever asks by it has no key


@pytest.mark.parametrize(
    ("headers", "refused"),
    [
        ({"origin": "http://127.0.0.1:80"}, False),
        ({"origin": "https://shop.example"}, False),  # a proxy passes on another host
        ({"sec_fetch_site": "same-origin", "origin": "https://proxied.example"}, False),
        ({"sec_fetch_site": "none"}, False),
        ({"origin": "http://127.0.0.1:8000"}, True),  # another server of this machine
        ({"origin": "https://evil.example"}, True),
        ({"origin": "https://evil.example", "sec_fetch_site": "cross-site"}, True),
        ({"origin": "https://shop.example.evil.example"}, True),
        ({"origin": "null"}, True),
        ({"sec_fetch_site": "cross-site"}, True),
        ({"sec_fetch_site": "same-site"}, True),
    ],
)
def test_a_page_may_post_only_to_its_own_host(headers: dict[str, str], refused: bool) -> None:
    assert _refused(_NAMED, "POST", host="127.0.0.1:80", **headers) == ("origin" if refused else None)
    assert _refused(_NAMED, "GET", host="127.0.0.1:80", **headers) is None


def test_a_foreign_page_gets_nothing_of_a_served_student(http: httpx.Client, served: StudentProcess) -> None:
    for headers in ({"origin": "https://evil.example"}, {"host": f"evil.example:{served.port}"}):
        files = [("image", ("a.png", picture(), "image/png"))]
        answer = http.post("/classify", files=files, headers=headers)
        assert error_of(answer) == ("invalid_request", *headers)
        assert "--allow-host" in answer.json()["error"]["message"]
    assert error_of(http.get("/v1/student", headers={"host": "evil.example"})) == ("invalid_request", "host")
    assert ask(http, picture()).status_code == 200
