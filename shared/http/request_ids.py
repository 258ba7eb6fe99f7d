"""The ids of requests."""

import secrets
import time


def new_request_id() -> str:
    """A new id: `req_` and, in 32 hexadecimal digits, a UUID of version 7 (RFC 9562, section 5.7).

    It begins with the time, so that requests which follow each other are neighbours in a database's indexes.
    Among ten million random ids each new one would be on a page of its own, to be read and written.
    """
    milliseconds = time.time_ns() // 1_000_000
    bits = milliseconds << 80 | 7 << 76 | secrets.randbits(12) << 64 | 0b10 << 62 | secrets.randbits(62)
    return f"req_{bits:032x}"
