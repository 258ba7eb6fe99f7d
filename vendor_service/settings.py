"""What an operator may set: by an option, by `VENDOR_*` in the environment, or by the same in `.env`."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from vendor_service.errors import UsageError

DtypeChoice = Literal["auto", "float32", "bfloat16"]
LogFormat = Literal["text", "json"]


class Settings(BaseSettings):
    """Everything that can be set, with the values that hold when nothing is.

    Sizes are in bytes, prices in millionths of the currency unit for one query; a price that is not set
    stays as it is in the database.
    """

    model_config = SettingsConfigDict(
        env_prefix="VENDOR_", env_file=".env", env_ignore_empty=True, extra="ignore", frozen=True
    )

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65_535)] = 8000
    model: str = "icon-clip"
    pretrained: str | None = None
    device: str = "auto"
    dtype: DtypeChoice = "auto"
    database_url: str = "sqlite:///tuition-vendor.db"
    migrate: bool = False
    log_format: LogFormat = "text"
    billing_log: Path | None = None

    image_price_micros: Annotated[int | None, Field(ge=0, le=10**12)] = None
    text_price_micros: Annotated[int | None, Field(ge=0, le=10**12)] = None

    max_inputs: Annotated[int, Field(ge=1)] = 256
    max_request_bytes: Annotated[int, Field(ge=1)] = 32 * 1024 * 1024
    max_image_bytes: Annotated[int, Field(ge=1)] = 20 * 1024 * 1024
    max_image_pixels: Annotated[int, Field(ge=1)] = 50_000_000
    max_text_characters: Annotated[int, Field(ge=1)] = 10_000
    max_queued_inputs: Annotated[int, Field(ge=1)] = 4096
    request_timeout_seconds: Annotated[int, Field(ge=1)] = 120

    @classmethod
    def read(cls, **options: object) -> Self:
        """Take the options that were given, and the environment or the defaults for those that are `None`.

        Raises:
            UsageError: a value is not what its setting allows; the message names it.
        """
        try:
            return cls.model_validate({name: value for name, value in options.items() if value is not None})
        except ValidationError as error:
            problems = "; ".join(
                f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}" for problem in error.errors()
            )
            raise UsageError(f"the settings are not valid ({problems})") from error
