"""`vendor`, and `python -m vendor_service`."""

import sys


def main() -> None:
    """Run the command line; Ctrl-C also ends it in the moment that its modules take to be imported."""
    try:
        from vendor_service.cli.main import main as run

        run()
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
