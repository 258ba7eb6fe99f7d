"""Database URLs as logs may show them."""

from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

from shared.text import visible

# Of a database URL's parameters these alone are shown: nobody can list all that may hold a secret.
_SHOWN_PARAMETERS = {
    *("application_name", "cache", "connect_timeout", "dbname", "host", "hostaddr", "keepalives"),
    *("load_balance_hosts", "mode", "port", "sslmode", "target_session_attrs", "timeout", "uri", "user"),
}


def masked_url(url: str) -> str:
    """A database URL as it may be shown: without its password, and without parameters that may hold one."""
    try:
        parsed = make_url(url)
        bare = parsed.set(query={}).render_as_string(hide_password=True)
        if not parsed.host and not parsed.username:  # a file, whose name is shown as it is
            bare = f"{parsed.drivername}:///{parsed.database or ''}"
    except (ArgumentError, ValueError):  # ValueError: a port that is none
        return "(not a database URL)"
    if parsed.host and any("@" in part for part in (parsed.username, parsed.host, parsed.database) if part):
        # A password that holds the @ unescaped is cut in the wrong place, and its rest is shown elsewhere.
        return f"{parsed.drivername}://(cannot be shown: percent-encode the @ in it as %40)"
    parameters = "&".join(
        f"{visible(name)}={value if name in _SHOWN_PARAMETERS else '***'}"
        for name, values in parsed.query.items()
        for value in ([values] if isinstance(values, str) else values)
    )
    return bare + (f"?{parameters}" if parameters else "")
