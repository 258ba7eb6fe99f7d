"""The keys that sign: in files for their owner alone, one whoever makes it, published before they sign."""

import asyncio
import logging
import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jwt
import pytest

from shared.receipts import Statement, thumbprint
from tests.vendor_service.books import Books, lose_answers
from vendor_service.errors import APIError, CommitInDoubt, OperatorError
from vendor_service.money import signing


def _published(books: Books) -> list[str]:
    with books.database.read() as session:
        return [each.kid for each in signing.every_key(session) if each.withdrawn is None]


def _signs_by(signer: signing.Signer) -> str:
    return str(jwt.get_unverified_header(signer.sign("t", Statement(iat=0)))["kid"])


def test_many_that_start_at_once_make_one_key(tmp_path: Path) -> None:
    file = tmp_path / "keys" / "signing.pem"
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: signing.read_or_make_key(file), range(32)))
    assert len({key.public.kid for key in made}) == 1
    assert [each.name for each in file.parent.iterdir()] == ["signing.pem"]
    assert file.stat().st_mode & 0o777 == 0o600


def test_servers_with_keys_of_their_own_publish_each_others(books: Books, tmp_path: Path) -> None:
    first, second = (
        signing.Signer(books.database, tmp_path / f"{name}.pem", books.clock) for name in ("a", "b")
    )
    signed = [jwt.get_unverified_header(each.sign("t", Statement(iat=0)))["kid"] for each in (first, second)]
    assert sorted(signed) == sorted(_published(books))
    assert len(set(signed)) == 2


def test_a_key_that_cannot_be_kept_signs_until_the_process_ends(
    books: Books, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("not a folder")
    signer = signing.Signer(books.database, tmp_path / "file" / "key.pem", books.clock)
    assert jwt.get_unverified_header(signer.sign("t", Statement(iat=0)))["kid"] in _published(books)
    assert "cannot be kept" in caplog.text


def test_a_key_of_openssl_is_taken_and_others_reading_it_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "key.pem"
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", file], check=True)
    file.chmod(0o644)
    with caplog.at_level(logging.WARNING):
        assert signing.read_key(file).public.kid == signing.read_or_make_key(file).public.kid
    assert "chmod 600" in caplog.text


@pytest.mark.parametrize(
    "content", [b"", b"nonsense", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"]
)
def test_a_file_of_something_else_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "key.pem"
    file.write_bytes(content)
    with pytest.raises(OperatorError, match="no private key"):
        signing.read_or_make_key(file)


def test_the_key_id_is_its_thumbprint() -> None:
    # The example of RFC 8037, appendices A.1 to A.3.
    assert thumbprint("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo") == (
        "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"
    )


def test_a_withdrawn_key_is_told_of_and_published_no_more(
    books: Books, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "key.pem"
    signing.Signer(books.database, file, books.clock)
    (kid,) = _published(books)
    with books.database.write() as session:
        signing.withdraw(session, kid, books.clock())
    signing.Signer(books.database, file, books.clock)
    assert _published(books) == []
    assert "was withdrawn" in caplog.text
    with books.database.write() as session, pytest.raises(OperatorError, match="receipts-key list"):
        signing.withdraw(session, "nobody", books.clock())


def test_a_rotation_of_which_nobody_heard_leaves_the_former_key_and_is_to_be_repeated(
    books: Books, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "key.pem"
    former = signing.read_or_make_key(file).public.kid
    with monkeypatch.context() as cut:
        lose_answers(cut)
        with pytest.raises(APIError, match="by the former key still, so try again") as refused:
            signing.rotate(books.database, file, books.clock)
    assert not isinstance(refused.value, CommitInDoubt)
    assert refused.value.retry_after == 1
    assert signing.read_key(file).public.kid == former
    renewed = signing.rotate(books.database, file, books.clock).public.kid
    assert signing.read_key(file).public.kid == renewed != former
    assert renewed in _published(books)


def test_a_key_that_is_replaced_stays_with_its_owner(
    books: Books, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, given = tmp_path / "key.pem", []

    def give(path: Path, *owner: int) -> None:
        given.append((path.parent, path == file, owner))

    signing.read_or_make_key(file)
    former = file.stat()
    monkeypatch.setattr(os, "chown", give)
    signing.rotate(books.database, file, books.clock)
    assert given == []
    monkeypatch.setattr(os, "geteuid", lambda: former.st_uid + 1)
    renewed = signing.rotate(books.database, file, books.clock)
    assert given == [(tmp_path, False, (former.st_uid, former.st_gid))]
    assert signing.read_key(file).public == renewed.public


def test_a_key_of_another_user_is_left_to_them_and_no_new_one_is_published(
    books: Books, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    file = tmp_path / "key.pem"
    former = signing.Signer(books.database, file, books.clock)
    monkeypatch.setattr(os, "chown", refuse)
    monkeypatch.setattr(os, "geteuid", lambda: file.stat().st_uid + 1)
    with pytest.raises(OperatorError, match="it is another user's, who or root may replace it"):
        signing.rotate(books.database, file, books.clock)
    assert _published(books) == [_signs_by(former)] == [signing.read_key(file).public.kid]
    assert list(tmp_path.glob("*key.pem*")) == [file]


def test_an_error_that_nobody_foresaw_does_not_keep_a_new_key_from_being_taken_up(
    books: Books, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "key.pem"
    signer = signing.Signer(books.database, file, books.clock)
    renewed = signing.rotate(books.database, file, books.clock).public.kid
    write, failures = books.database.write, iter(range(2))

    def failing() -> Any:
        return write() if next(failures, None) is None else 1 / 0

    async def work() -> None:
        repeated = asyncio.create_task(signer.repeat(0.01))
        async with asyncio.timeout(20):
            while not repeated.done() and _signs_by(signer) != renewed:
                await asyncio.sleep(0.01)
        repeated.cancel()

    monkeypatch.setattr(books.database, "write", failing)
    asyncio.run(work())
    assert _signs_by(signer) == renewed
    assert caplog.text.count("ZeroDivisionError") == 2
