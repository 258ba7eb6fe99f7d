"""Actors: how the audit log names who did something."""

import os
import pwd


def os_user() -> str:
    """The user of the operating system who runs this process, and who called `sudo` for that, if anybody."""
    try:
        name = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # as in a container whose user has no name
        name = str(os.getuid())
    by = os.environ.get("SUDO_USER")
    return f"os:{name} (sudo: {by[:64]})" if by else f"os:{name}"


def operator(token_id: str, name: str) -> str:
    """An operator's token."""
    return f"operator:{token_id} ({name})"


def customer_key(key_id: str) -> str:
    """A customer's key, by which a customer changes keys of the same account."""
    return f"key:{key_id}"


def invited(invitation_id: str) -> str:
    """Somebody who signed in to a customer's console by an invitation."""
    return f"invitation:{invitation_id}"
