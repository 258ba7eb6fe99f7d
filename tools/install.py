"""Installs into the environment of this interpreter: by uv, in less than half of pip's time, or by pip.

    .venv/bin/python tools/install.py --quiet --editable '.[dev]'

It takes the arguments that `pip install` and `uv pip install` share. uv is the one that is there, or one that
pip brings. uv does not read pip's settings (an index of one's own, constraints), so they are handed over as
uv's variables. pip installs where a setting has no counterpart, where this machine has no uv, and where uv
fails. The Makefile calls it before anything is installed: it needs the standard library alone.
"""

import ast
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

# What a setting of pip is called by uv, and what stands between several values there.
_COUNTERPARTS = {
    "cert": ("SSL_CERT_FILE", ""),
    "constraint": ("UV_CONSTRAINT", " "),
    "default-timeout": ("UV_HTTP_TIMEOUT", ""),
    "extra-index-url": ("UV_INDEX", " "),
    "find-links": ("UV_FIND_LINKS", ","),
    "index-url": ("UV_DEFAULT_INDEX", ""),
    "proxy": ("HTTPS_PROXY", ""),
    "timeout": ("UV_HTTP_TIMEOUT", ""),
    "trusted-host": ("UV_INSECURE_HOST", " "),
}
# They change nothing of what is installed in an environment.
_WITHOUT_EFFECT = {
    "break-system-packages", "cache-dir", "compile", "disable-pip-version-check", "no-cache-dir",
    "no-compile", "no-input", "progress-bar", "quiet", "require-virtualenv", "retries",
    "root-user-action", "verbose",
}  # fmt: skip


def as_variables(listed: str) -> Mapping[str, str] | None:
    """uv's variables for pip's settings, as `pip config list` prints them; None if one has no counterpart.

    A setting of `pip install` goes before a global one, and a variable before both, as in pip.
    """
    settings: dict[str, dict[str, str]] = {"global": {}, "install": {}, ":env:": {}}
    for line in listed.splitlines():
        name, _, value = line.partition("=")
        section, _, option = name.rpartition(".")
        if section in settings:
            settings[section][option] = ast.literal_eval(value)
    told = {option: value for section in settings.values() for option, value in section.items()}
    if not _COUNTERPARTS.keys() | _WITHOUT_EFFECT >= told.keys():
        return None
    variables = {}
    for option, value in told.items():
        if counterpart := _COUNTERPARTS.get(option):
            name, between = counterpart
            variables[name] = between.join(value.split()) if between else value
    if "UV_INDEX" in variables:  # pip takes the best release of all indexes, uv that of the first
        variables["UV_INDEX_STRATEGY"] = "unsafe-best-match"
    return variables


def _uv() -> str | None:
    beside = Path(sys.executable).parent
    everywhere = os.pathsep.join([str(beside), os.environ.get("PATH", ""), ".venv/bin"])
    if found := shutil.which("uv", path=everywhere):
        return found
    _pip("install", "--quiet", "uv")
    return shutil.which("uv", path=str(beside))


def _pip(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)


def main(arguments: list[str]) -> int:
    """Install what the arguments name; the installer's exit status."""
    variables = as_variables(_pip("config", "list").stdout)
    if variables is not None and (uv := _uv()):
        command = [uv, "pip", "install", "--python", sys.executable, *arguments]
        if subprocess.run(command, env={**variables, **os.environ}, check=False).returncode == 0:
            return 0
        print("uv did not install it; pip is asked.", file=sys.stderr)
    # Bytecode is made of what is imported, then: to compile all of PyTorch takes a minute.
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--no-compile",
        "--disable-pip-version-check",
        *arguments,
    ]
    return subprocess.run(command, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
