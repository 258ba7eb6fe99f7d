"""Names of domains as names of folders."""

import re


def as_file_name(domain: str) -> str:
    """A domain's name as a folder can have it.

    A domain of a table may have any name: what no file's name holds is escaped, and what looks like an escape
    as well, so that two domains never share a folder.
    """
    if domain in (".", ".."):
        return domain.replace(".", "%2E")
    return re.sub("%(?=2E|2F|00|25)", "%25", domain).replace("/", "%2F").replace("\0", "%00")
