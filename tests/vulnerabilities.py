"""Is anything that is installed here known to be vulnerable? pip-audit asks PyPI, or whom its options name.

    make audit                                              # or, for another service:
    python -m tests.vulnerabilities --vulnerability-service osv

All options that are not listed here are pip-audit's: `--ignore-vuln ID` accepts one that has no fix yet, say.
It ends with 1 if something is known to be vulnerable, and with 2 if nobody could be asked, or with
`--if-reachable` with a notice and 0. A package index that only has files, as a mirror, cannot be asked.
"""

import argparse
import hashlib
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

_HOURS = {0: 24, 2: 1}  # that an outcome is good for; what is vulnerable is asked about again each time
_WORTH_NAMING = 8


@dataclass(frozen=True)
class Audit:
    """What came of it: 0, 1 or 2, as the exit code, and the words for it."""

    code: int
    told: str


def audit(options: Sequence[str], python: str = sys.executable) -> Audit:
    """Have pip-audit ask about everything that is installed for this Python."""
    command = [python, "-m", "pip_audit", "--format", "json", "--progress-spinner", "off", *options]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        found: list[dict[str, Any]] = json.loads(ended.stdout)["dependencies"]
    except (json.JSONDecodeError, KeyError):
        last = (ended.stderr.strip().splitlines() or ["pip-audit said nothing"])[-1]
        return Audit(2, f"NOT AUDITED for known vulnerabilities: {last}")
    vulnerable = [each for each in found if each.get("vulns")]
    if vulnerable:
        return Audit(1, "\n".join(_fault(each) for each in vulnerable))
    unknown = [str(each["name"]) for each in found if "skip_reason" in each]
    if len(unknown) == len(found):
        return Audit(2, "NOT AUDITED for known vulnerabilities: whoever was asked knows none of the packages")
    told = f"{len(found) - len(unknown)} packages have no known vulnerabilities"
    if unknown:
        more = f" and {len(unknown) - _WORTH_NAMING} more" if len(unknown) > _WORTH_NAMING else ""
        told += f"; nothing is known about {', '.join(unknown[:_WORTH_NAMING])}{more}"
    return Audit(0, told)


def remembered(file: Path, options: Sequence[str]) -> Audit:
    """The same, from a file while it is about the same packages and options and not too old."""
    installed = sorted({f"{each.metadata['name']} {each.version}" for each in distributions()})
    digest = hashlib.sha256(json.dumps([installed, list(options)]).encode()).hexdigest()
    try:
        kept = json.loads(file.read_text())
        age = time.time() - kept["at"]
        if kept["digest"] == digest and 0 <= age < 3600 * _HOURS.get(kept["code"], 0):
            return Audit(kept["code"], kept["told"])
    except (OSError, ValueError, KeyError, TypeError):
        pass  # nothing was kept, or nothing that can be read
    outcome = audit(options)
    file.write_text(json.dumps(asdict(outcome) | {"digest": digest, "at": time.time()}))
    return outcome


def _fault(dependency: dict[str, Any]) -> str:
    faults = "; ".join(
        f"{each['id']}, mended in {', '.join(each['fix_versions']) or 'no version yet'}"
        for each in dependency["vulns"]
    )
    return f"VULNERABLE: {dependency['name']} {dependency['version']}: {faults}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Ask, say what came of it, and give the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--if-reachable", action="store_true", help="that nobody can be asked is no failure")
    parser.add_argument("--remember", type=Path, metavar="FILE", help="ask once a day; keep the answer there")
    ours, options = parser.parse_known_args(arguments)
    outcome = remembered(ours.remember, options) if ours.remember else audit(options)
    print(outcome.told, file=sys.stderr if outcome.code else sys.stdout)
    return 0 if ours.if_reachable and outcome.code == 2 else outcome.code


if __name__ == "__main__":
    raise SystemExit(main())
