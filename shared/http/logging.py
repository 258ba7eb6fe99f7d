"""The log, as text for people or JSON for programs.

Whatever a line is made of, strangers' paths and errors' texts included, it stays one line without control
characters and without secrets.
"""

import json
import logging
import re
from datetime import UTC, datetime
from typing import Any

from shared.text import visible

_log = logging.getLogger(__name__)

_NOT_PLAIN = re.compile(r'[\s"=]')
_API_KEY = re.compile(r"((?:tk|op)_[0-9a-f]{16}_)[0-9a-f]{48}")  # a customer's, an operator's
# A password between a scheme and the last @ of the same word, and one that is named as such. All repeat a
# bounded number of times, for strangers choose what is searched here.
_USERINFO = re.compile(r"(://[^\s:/@]{0,256}):\S{0,512}@")
_NAMED = re.compile(
    r"((?:password|passwd|passphrase|pwd)\s{0,8}[=:]\s{0,8})('[^']{0,512}'|\"[^\"]{0,512}\"|[^\s&'\"]+)",
    re.IGNORECASE,
)
# What has none of these holds none of the above: most of what is logged is found harmless in one search.
_SUSPECT = re.compile("tk_|op_|://|pass|pwd", re.IGNORECASE)


class TextFormatter(logging.Formatter):
    """A line for people: time, level, message, then `name=value` fields; an exception follows, indented.

    A value with a space, a quote or an equals sign is quoted, so that none looks like another field.
    """

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        """Render the record, each line of an exception behind two spaces and a bar."""
        # The message is made safe before it meets the exception, whose lines are to stay lines.
        fields = "".join(
            f" {_plain(name)}={_plain(value)}" for name, value in getattr(record, "fields", {}).items()
        )
        record.message, record.asctime = record.getMessage(), self.formatTime(record)
        lines = [_safe(self.formatMessage(record) + fields)]
        if record.exc_info:
            lines += [f"  | {_safe(line)}" for line in self.formatException(record.exc_info).split("\n")]
        if record.stack_info:
            lines += [f"  | {_safe(line)}" for line in record.stack_info.split("\n")]
        return "\n".join(lines)


class JsonFormatter(logging.Formatter):
    """A line for programs: one JSON object."""

    def format(self, record: logging.LogRecord) -> str:
        """Render the record and its fields."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        # JSON writes all that is not ASCII, and of ASCII all control characters but DEL, as codes.
        return json.dumps(_without_secrets(line), default=str).replace("\x7f", "\\u007f")


def _safe(text: str) -> str:
    return visible(masked(text))


def _plain(value: object) -> str:
    text = masked(str(value))
    return json.dumps(text, ensure_ascii=False) if _NOT_PLAIN.search(text) else text


def _without_secrets(value: Any) -> Any:  # noqa: ANN401 - whatever is logged
    if isinstance(value, dict):
        return {masked(str(name)): _without_secrets(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_without_secrets(each) for each in value]
    return value if value is None or isinstance(value, bool | int | float) else masked(str(value))


def configure_logging(ours: str, *, as_json: bool) -> None:
    """Log this process to standard error: the package `ours` and this one from INFO, others from WARNING."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter() if as_json else TextFormatter())
    root = logging.getLogger()
    root.handlers = [handler]
    logging.captureWarnings(True)
    root.setLevel(logging.WARNING)
    for name in (ours, "shared"):
        logging.getLogger(name).setLevel(logging.INFO)


def masked(text: str) -> str:
    """The text without the secrets of keys and tokens, and the passwords in URLs and connection strings."""
    if _SUSPECT.search(text) is None:
        return text
    text = _API_KEY.sub(r"\1***", text)
    return _NAMED.sub(r"\1***", _USERINFO.sub(r"\1:***@", text))
