"""`client`, and `python -m client`, which is how launchers of several processes start it."""

import sys


def main() -> None:
    """Run the command line; Ctrl-C also ends it in the moment that its modules take to be imported."""
    try:
        from client.cli.main import main as run

        run()
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
