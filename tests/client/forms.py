"""Reading the forms that the client sends, for the scripted vendors."""

import httpx


def read_form(request: httpx.Request) -> tuple[dict[str, str], list[tuple[str, bytes]]]:
    """The fields of an embed request, and its queries: the kind and the content of each, in order."""
    boundary = request.headers["content-type"].partition("boundary=")[2].encode()
    *parts, end = request.content.split(b"--" + boundary)[1:]
    assert end == b"--\r\n"
    fields: dict[str, str] = {}
    queries: list[tuple[str, bytes]] = []
    for part in parts:
        head, _, content = part.removeprefix(b"\r\n").removesuffix(b"\r\n").partition(b"\r\n\r\n")
        name = head.decode().partition('name="')[2].partition('"')[0]
        if name in ("text", "image"):
            queries.append((name, content))
        else:
            fields[name] = content.decode()
    return fields, queries
