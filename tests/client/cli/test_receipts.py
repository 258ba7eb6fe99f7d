"""`client receipts verify`: of a file or of the cache, with the vendor's keys or without."""

from pathlib import Path
from typing import NoReturn

import pytest

from client.cli.main import main
from client.options.vendor import VendorOptions
from tests.client.folders import write_trusted


def test_keys_of_the_settings_are_for_a_file_and_no_hindrance_to_check_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def of_file(file: Path, keys: Path | None) -> NoReturn:
        pytest.fail(f"{file} by {keys}")

    def of_cache(options: VendorOptions) -> NoReturn:
        pytest.fail(str(options.cache))

    monkeypatch.setattr("client.api.receipts.verify_receipts_file", of_file)
    monkeypatch.setattr("client.api.receipts.verify_receipts", of_cache)
    monkeypatch.chdir(tmp_path)
    write_trusted('keys = "jwks.json"\ncache = "bought.db"\n')
    for typed, checked in (
        ([], "bought.db"),
        (["bought.json"], "bought.json by jwks.json"),
        (["bought.json", "--keys", "typed.json"], "bought.json by typed.json"),
    ):
        with pytest.raises(pytest.fail.Exception) as found:
            main(["receipts", "verify", *typed])
        assert str(found.value) == checked
    with pytest.raises(SystemExit) as end:
        main(["receipts", "verify", "--keys", "typed.json"])
    assert end.value.code == 2
    assert "--keys is for a FILE" in capsys.readouterr().err
