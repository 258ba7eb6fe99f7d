"""`client`, and `python -m client`, which is how launchers of several processes start it."""

from shared.command_line import ended_by_interrupt, escape_what_cannot_be_encoded
from shared.memory import collect_young


def main() -> None:
    """Run the command line; Ctrl-C also ends it in the moment that its modules take to be imported."""
    with ended_by_interrupt():
        escape_what_cannot_be_encoded()
        collect_young()
        from client.cli.main import main as run

        run()


if __name__ == "__main__":
    main()
