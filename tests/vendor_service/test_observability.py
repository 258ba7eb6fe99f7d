"""Logs: an id on every line, nothing secret, and no crash without an answer."""

import json
import logging
import socket
import time
from pathlib import Path

import pytest

from tests.vendor_process import wait_until
from tests.vendor_service.local_vendor import LocalVendor, ScriptedTexts, Vendor, error_code
from vendor_service.observability import JsonFormatter, TextFormatter


def test_every_request_is_logged_without_its_key_and_its_payload(
    vendor: Vendor, caplog: pytest.LogCaptureFixture
) -> None:
    key = vendor.key()
    with caplog.at_level(logging.INFO, "vendor_service"):
        answer = vendor.embed(
            key, {"text": "a very private text"}, headers={"idempotency-key": "private too"}
        )
        wait_until(lambda: "request" in caplog.messages)  # it is written once the answer is out
    lines = [JsonFormatter().format(record) for record in caplog.records]
    (line,) = [json.loads(each) for each in lines if answer.headers["x-request-id"] in each]
    assert (line["method"], line["path"], line["status"]) == ("POST", "/embed", 200)
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
    with caplog.at_level(logging.INFO, "vendor_service"):
        with socket.create_connection(("127.0.0.1", vendor.port)) as caller:
            caller.sendall(f"{request}content-length: 1000\r\n\r\nhalf".encode())
            time.sleep(0.1)
        wait_until(lambda: any("499" in TextFormatter().format(record) for record in caplog.records))
    assert {record.levelname for record in caplog.records} == {"INFO"}


def test_text_lines_carry_the_same_fields() -> None:
    record = logging.makeLogRecord({"msg": "request", "levelname": "INFO", "fields": {"status": 200}})
    assert TextFormatter().format(record).endswith("INFO request status=200")
