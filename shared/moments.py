"""Moments that somebody sends."""

from datetime import datetime
from typing import Annotated

from pydantic import BeforeValidator, Field


def _no_number(sent: object) -> object:
    # Pydantic alone takes it for the seconds since 1970: "20270630" for a day of that year.
    if isinstance(sent, str):
        try:
            float(sent)
        except ValueError:
            return sent
        raise ValueError("write a date as in 2027-06-30 or 2027-06-30T12:00:00Z, not a number")
    return sent


# A day or a time as in ISO 8601, in models that are strict as well; a text that is a number is neither.
Moment = Annotated[datetime, Field(strict=False), BeforeValidator(_no_number)]
