"""`vendor serve`: every setting with a description is an option of it."""

import logging

import typer

from shared.threads import share_processors
from shared.typer_commands import add_command
from vendor_service.advice import addressed, whole_url
from vendor_service.errors import OperatorError
from vendor_service.run.settings import Settings


def serve(settings: Settings) -> None:
    """Serve a model over HTTP until stopped. Each option is also a setting: VENDOR_PORT, VENDOR_MODEL ...

    Example: vendor serve --model ViT-B-16/openai --port 8000
    """
    # The model's libraries take seconds to import, which no other command should wait for.
    share_processors()
    from vendor_service.run.logs import log_as
    from vendor_service.run.model_loader import end_while_loading
    from vendor_service.run.serve import start

    def announce(url: str, facts: str) -> None:
        print(f"Tuition vendor ready on {url} ({facts})", flush=True)

    log_as(settings)
    _tell(settings)
    try:
        status = 130 if start(settings, announce) else 0
    except OperatorError as error:  # read elsewhere, in the journal of a service say
        raise type(error)(addressed(str(error), whole_url(settings.database_url))) from error
    end_while_loading(status)
    raise typer.Exit(status)


def add_serve(app: typer.Typer) -> None:
    """Add the command."""
    unlisted = Settings.model_fields.keys() - Settings.typed()
    add_command(app, serve, without=unlisted, read=Settings.read)


def _tell(settings: Settings) -> None:
    log = logging.getLogger(__name__)
    log.info("settings", extra={"fields": settings.shown()})
    for name in settings.unknown():
        log.warning("%s is set, but is not a setting of this version", name)
