"""Somebody at the console without a browser: what they get and send, with the cookie that they keep."""

import re
from html import unescape
from secrets import token_hex
from typing import Any

import httpx

HIDDEN = re.compile(r'type="hidden" name="([^"]+)" value="([^"]*)"')


class Visit:
    """A session of a site; `root` is `/console` or `/operator`. Sign in with `by` or with a cookie."""

    def __init__(self, http: httpx.Client, root: str = "/console", cookie: str = "") -> None:
        self.http = http
        self.root = root
        self.cookie = cookie
        self._csrf: dict[str, str] = {}  # by cookie

    def sign_in(self, path: str = "/sign-in", **form: str) -> httpx.Response:
        """Send the form of a way in, and keep the cookie."""
        answer = self.http.post(f"{self.root}{path}", data=form)
        for each in answer.headers.get_list("set-cookie"):
            if "Max-Age=0" not in each:
                self.cookie = each.partition(";")[0]
        return answer

    def get(self, path: str = "", **headers: str) -> httpx.Response:
        """A page."""
        return self.http.get(f"{self.root}{path}", headers={"cookie": self.cookie} | headers)

    def page(self, path: str = "") -> str:
        """A page that must be there."""
        answer = self.get(path)
        assert answer.status_code == 200, answer.text
        return answer.text

    @property
    def csrf(self) -> str:
        """What forms of this session bring."""
        if self.cookie in self._csrf:
            return self._csrf[self.cookie]
        found = re.search(
            r'name="csrf" value="([^"]+)"', self.page("/sessions" if "console" in self.root else "/audit")
        )
        assert found is not None
        return self._csrf.setdefault(self.cookie, found[1])

    def send(self, path: str, form: dict[str, Any], **headers: str) -> httpx.Response:
        """Send a form as it is."""
        return self.http.post(f"{self.root}{path}", data=form, headers={"cookie": self.cookie} | headers)

    def ask(self, path: str, **form: Any) -> httpx.Response:
        """Send a form of this session, as of a page of its own."""
        return self.send(path, {"csrf": self.csrf, "once": token_hex(8), **form})

    def do(self, path: str, **form: Any) -> httpx.Response:
        """Send a form of this session, and say yes to the question."""
        return self.confirm(path, self.ask(path, **form))

    def confirm(self, path: str, asked: httpx.Response) -> httpx.Response:
        """Say yes to a question, if it is one."""
        if 'name="confirmed"' not in asked.text:
            return asked
        main = asked.text[asked.text.index("<main") :]
        pairs: dict[str, list[str]] = {}
        for name, value in HIDDEN.findall(main):
            pairs.setdefault(name, []).append(unescape(value))
        return self.send(path, pairs)


def hidden(asked: httpx.Response, name: str) -> str:
    """What a question brings back under that name."""
    return unescape(dict(HIDDEN.findall(asked.text))[name])


def problem_of(answer: httpx.Response) -> str:
    """What a page says is wrong."""
    found = re.search(r'<(p|div) class="problem"[^>]*>(.*?)</\1>', answer.text, re.DOTALL)
    return unescape(re.sub("<[^>]+>", "", found[2])).strip() if found else ""


def told_by(visit: Visit, done: httpx.Response) -> str:
    """What the page says to which an action sent the browser."""
    sent = [each.partition(";")[0] for each in done.headers.get_list("set-cookie")]
    kept = "; ".join([visit.cookie, *sent])
    return visit.http.get(done.headers["location"], headers={"cookie": kept}).text
