"""Logs: an id on every line, nothing secret, and no crash without an answer."""

import json
import logging
import re
import socket
import time
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import make_url

from shared.http.logging import JsonFormatter, TextFormatter
from tests.support.postgres import Postgres
from tests.support.vendor_process import wait_until
from tests.vendor_service.local_vendor import LocalVendor, ScriptedTexts, Vendor, error_code
from vendor_service.database import schema, session
from vendor_service.database.session import Database
from vendor_service.errors import APIError


def test_every_request_is_logged_without_its_key_and_its_payload(
    vendor: Vendor, caplog: pytest.LogCaptureFixture
) -> None:
    key = vendor.key()
    with caplog.at_level(logging.INFO, "shared"):
        answer = vendor.embed(
            key, {"text": "a very private text"}, headers={"idempotency-key": "private too"}
        )
        wait_until(lambda: "request" in caplog.messages)  # it is written once the answer is out
    lines = [JsonFormatter().format(record) for record in caplog.records]
    (line,) = [json.loads(each) for each in lines if answer.headers["x-request-id"] in each]
    assert (line["method"], line["path"], line["status"]) == ("POST", "/embed", 200)
    assert (line["account_id"], line["key_id"]) == (vendor.account(key).id, key.split("_")[1])
    assert key.split("_")[2] not in "".join(lines)
    assert "private" not in "".join(lines)


def test_a_crash_is_logged_with_its_request_and_answered(
    scripted: ScriptedTexts, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with LocalVendor(tmp_path) as vendor, caplog.at_level(logging.ERROR, "vendor_service"):
        answer = vendor.embed(vendor.key(), {"text": "explode"})
        assert error_code(answer) == "internal_error"
    (crash,) = [record for record in caplog.records if record.getMessage() == "unexpected error"]
    line = json.loads(JsonFormatter().format(crash))
    assert line["request_id"] == answer.headers["x-request-id"]
    assert "the model is broken" in line["exception"]


def test_a_caller_that_hangs_up_while_sending_is_no_error(
    vendor: Vendor, caplog: pytest.LogCaptureFixture
) -> None:
    request = f"POST /embed HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {vendor.key()}\r\n"
    with caplog.at_level(logging.INFO, "shared"):
        with socket.create_connection(("127.0.0.1", vendor.port)) as caller:
            caller.sendall(f"{request}content-length: 1000\r\n\r\nhalf".encode())
            time.sleep(0.1)
        wait_until(lambda: any("499" in TextFormatter().format(record) for record in caplog.records))
    assert {record.levelname for record in caplog.records} == {"INFO"}


def test_a_stranger_forges_no_line_and_reaches_no_terminal(
    vendor: Vendor, caplog: pytest.LogCaptureFixture
) -> None:
    forged = "/x%0A2026-11-27%2006:00:00,000%20INFO%20forged%1B%5B2J%C2%85%E2%80%AE%20status=200"
    with caplog.at_level(logging.INFO, "shared"):
        vendor.http.get(forged)
        vendor.http.get(f"/v1/keys/tk_0f3c7a91d2b45e68_{'a' * 48}", headers={"x-request-id": "a\tb"})
        wait_until(lambda: caplog.messages.count("request") == 2)
    for formatter in (TextFormatter(), JsonFormatter()):
        first, second = (formatter.format(record) for record in caplog.records if record.msg == "request")
        assert not re.search("[\x00-\x1f\x7f-\x9f\u202e]", first + second)
        assert "status=404" in first or '"status": 404' in first
        assert "a" * 48 not in second


def test_a_stranger_makes_no_line_long(vendor: Vendor, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "shared"):
        vendor.http.get("/" + "x" * 8000)
        wait_until(lambda: "request" in caplog.messages)
    (record,) = [each for each in caplog.records if each.msg == "request"]
    assert all(len(formatter.format(record)) < 1000 for formatter in (TextFormatter(), JsonFormatter()))


def test_why_a_database_is_away_is_told_once_and_so_is_its_return(
    postgres: Postgres, caplog: pytest.LogCaptureFixture
) -> None:
    url = make_url(postgres.create_database())
    with closing(Database(url.set(password="hunter2").render_as_string(hide_password=False))) as database:
        schema.upgrade(database)
        with caplog.at_level(logging.INFO, "vendor_service"):
            postgres.stop()
            try:
                for _ in range(3):
                    with pytest.raises(APIError):
                        database.check()
            finally:
                postgres.start()
            database.check()
            database.check()
    told = [each for each in caplog.records if each.name == session.__name__]  # others' vendors log as well
    away, back = told
    assert "the database does not answer: " in away.getMessage()
    assert len(away.getMessage()) > len("the database does not answer: ") + 20
    assert back.getMessage() == "the database does answer again"
    assert "hunter2" not in caplog.text
