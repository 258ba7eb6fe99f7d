"""`client receipts verify`: of a file or of the cache, with the vendor's keys or without, all of it typed."""

from pathlib import Path
from typing import NoReturn

import pytest

from client.cli.main import main
from client.options.vendor import VendorOptions
from tests.client.folders import write_trusted


def test_what_is_checked_and_by_which_keys_is_typed_and_never_taken_from_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def of_file(file: Path, keys: Path | None) -> NoReturn:
        pytest.fail(f"{file} by {keys}")

    def of_cache(options: VendorOptions, **_: object) -> NoReturn:
        pytest.fail(str(options.cache))

    monkeypatch.setattr("client.api.receipts.verify_receipts_file", of_file)
    monkeypatch.setattr("client.api.receipts.verify_receipts", of_cache)
    monkeypatch.chdir(tmp_path)
    write_trusted('cache = "bought.db"\n')
    for typed, checked in (
        ([], "bought.db"),
        (["bought.json"], "bought.json by None"),
        (["bought.json", "--keys", "typed.json"], "bought.json by typed.json"),
    ):
        with pytest.raises(pytest.fail.Exception) as found:
            main(["receipts", "verify", *typed])
        assert str(found.value) == checked
    for planted in (
        "",
        'keys = "jwks.json"',
        'file = "bought.json"',
        '["receipts verify"]\nkeys = "jwks.json"',
    ):
        write_trusted(f"{planted}\n")
        with pytest.raises(SystemExit) as end:
            main(["receipts", "verify", *([] if planted else ["--keys", "typed.json"])])
        assert end.value.code == 2
        why = "given on the command line alone" if planted else "--keys is for a FILE"
        assert why in " ".join(capsys.readouterr().err.split())
