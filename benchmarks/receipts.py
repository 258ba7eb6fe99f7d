"""What a signed receipt costs: processor time and requests a second, beside the same vendor without receipts.

    make bench-receipts

With `--of sketches` (`make bench-sketches`) it is what the sketches cost that are kept of answers.

Two vendors stand side by side and are asked in turn, over loopback, so that what else the machine does hits
both alike. Both charge, in SQLite. Texts meet an encoder that answers at once, images the bundled model.
"""

import argparse
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from benchmarks.ceiling import TICKS, spent
from benchmarks.money import Served, images, served, text, throughput
from tests.support.vendor_process import below


def main() -> None:
    """Measure, and print the table of docs/trust.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=6.0, help="of each measurement")
    parser.add_argument("--of", choices=("receipts", "sketches"), default="receipts")
    arguments = parser.parse_args()
    receipts = arguments.of == "receipts"
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory()))
        vendors = {
            "no": stack.enter_context(
                served(f"sqlite:///{folder / 'no.db'}", "unsigned" if receipts else "signed", sketches=False)
            ),
            "yes": stack.enter_context(served(f"sqlite:///{folder / 'yes.db'}", sketches=not receipts)),
        }
        print(
            f"| request | {arguments.of} | requests a second | processor time a request | of that without |"
        )
        print("|---|---|---|---|---|")
        for name, inputs, callers in (("1 text", text(), 16), ("32 images", images(32), 4)):
            for vendor in vendors.values():
                throughput(vendor, inputs, callers, 1.0)
            found: dict[str, list[tuple[float, float]]] = {signed: [] for signed in vendors}
            for number in range(arguments.rounds):
                order = list(vendors.items())
                for signed, vendor in reversed(order) if number % 2 else order:
                    found[signed].append(_measured(vendor, inputs, callers, arguments.seconds))
            for signed, each in found.items():
                ratio = median(mine[1] / without[1] for mine, without in zip(each, found["no"], strict=True))
                rate, cost = (median(values) for values in zip(*each, strict=True))
                print(f"| {name} | {signed} | {rate:.1f} | {1000 * cost:.2f} ms | {ratio:.3f} |", flush=True)


def _measured(
    vendor: Served, inputs: list[dict[str, str]], callers: int, seconds: float
) -> tuple[float, float]:
    """Requests a second, and seconds of processor time that the vendor and its children took for each."""
    before = _spent(vendor)
    rate = throughput(vendor, inputs, callers, seconds)
    return rate, (_spent(vendor) - before) / TICKS / (rate * seconds)


def _spent(vendor: Served) -> int:
    """Clock ticks of the vendor, and of the processes below it that decode."""
    return sum(spent(Path(f"/proc/{pid}/stat")) for pid in (vendor.pid, *below(vendor.pid)))


if __name__ == "__main__":
    main()
