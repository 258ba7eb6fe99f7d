"""`vendor`, and `python -m vendor_service`."""

from shared.command_line import ended_by_interrupt, escape_what_cannot_be_encoded


def main() -> None:
    """Run the command line; Ctrl-C also ends it in the moment that its modules take to be imported."""
    with ended_by_interrupt():
        escape_what_cannot_be_encoded()
        from vendor_service.cli.main import main as run

        run()


if __name__ == "__main__":
    main()
