"""The log of the vendor's processes."""

import logging

from shared.http.logging import configure_logging
from vendor_service.advice import AddressedLog
from vendor_service.run.settings import Settings


def log_as(settings: Settings) -> None:
    """Log this process to standard error; commands in its lines name the books."""
    configure_logging("vendor_service", as_json=settings.log_format == "json")
    for handler in logging.getLogger().handlers:
        handler.addFilter(AddressedLog(settings.database_url))
