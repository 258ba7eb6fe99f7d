"""What a command says of the vendor that it is given."""

import os
from io import StringIO
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console

from client.data.examples import read_files
from client.errors import CacheError, UsageError
from client.options.vendor import VendorOptions
from client.progress import Display
from client.runs.connection import Connection


@pytest.mark.parametrize(
    ("url", "warned"),
    [
        ("http://vendor.example", True),
        ("HTTP://10.0.0.1:8000", True),
        ("http://localhost.example", True),
        ("https://vendor.example", False),
        ("http://127.0.0.1:8000", False),
        ("http://127.9.9.9", False),
        ("http://localhost:8000", False),
        ("http://vendor.localhost", False),
        ("http://[::1]:8000", False),
    ],
)
def test_a_key_over_plain_http_to_another_host_is_warned_of_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, url: str, warned: bool
) -> None:
    monkeypatch.setenv("TUITION_API_KEY", "tk_0_secret")
    said = StringIO()
    connection = Connection(
        VendorOptions(vendor=url, cache=tmp_path / "cache.db"), Display(Console(file=said, width=500))
    )
    for _ in range(2):
        with connection.vendor():
            pass
    assert said.getvalue().count("plain http") == warned
    assert "secret" not in said.getvalue()


def test_an_address_with_a_password_is_shown_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUITION_API_KEY", "tk_0")
    said = StringIO()
    connection = Connection(
        VendorOptions(vendor="http://me:secret@vendor.example"), Display(Console(file=said))
    )
    with pytest.raises(UsageError, match="no password"), connection.vendor():
        pass
    assert not said.getvalue()


def test_without_a_key_there_is_nothing_to_warn_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TUITION_API_KEY", raising=False)
    said = StringIO()
    with Connection(VendorOptions(vendor="http://vendor.example"), Display(Console(file=said))).vendor():
        assert not said.getvalue()


def test_what_is_known_of_files_and_a_cache_are_never_taken_for_each_other(tmp_path: Path) -> None:
    said = StringIO()

    def connection(cache: str) -> Connection:
        display = Display(Console(file=said, width=1000))
        return Connection(VendorOptions(vendor="http://vendor.example", cache=tmp_path / cache), display)

    picture = tmp_path / "red.png"
    Image.new("RGB", (20, 10), "red").save(picture)
    os.utime(picture, (1, 1))
    facts = list(read_files([picture], connection("a.db").files))
    with pytest.raises(CacheError, match="made for something else"), connection("a.db.files").cache():
        pass
    assert connection("a.db").files.recall([picture]) == facts
    with connection("b.db.files").cache():
        pass
    assert not said.getvalue()
    other = connection("b.db")
    for _ in range(2):
        assert list(read_files([picture], other.files)) == facts
    assert said.getvalue().count("b.db.files was not made by Tuition") == 1
    with connection("b.db.files").cache() as cache:
        assert cache.holdings() == []
    assert sorted(path.name for path in tmp_path.glob("*.db*")) == ["a.db.files", "b.db.files"]
