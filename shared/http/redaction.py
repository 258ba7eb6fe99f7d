"""Redaction: text for logs, without control characters and without the secrets it might hold."""

import re

# C0, DEL and C1; line and paragraph separators; marks that change the direction of what a terminal shows;
# the mark of byte order; and halves of surrogate pairs, which no encoding can write.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")
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


def escaped(text: str) -> str:
    r"""The text with every control character written as its code (`\x1b`, `\n`, `\u202e`): on one line."""
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape", "surrogatepass").decode(), text)


def masked(text: str) -> str:
    """The text without the secrets of keys and tokens, and the passwords in URLs and connection strings."""
    if _SUSPECT.search(text) is None:
        return text
    text = _API_KEY.sub(r"\1***", text)
    return _NAMED.sub(r"\1***", _USERINFO.sub(r"\1:***@", text))
