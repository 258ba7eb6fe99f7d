"""The settings of the vendor: by an option, by `VENDOR_*` in the environment, or by the same in `.env`.

`VENDOR_*_FILE`, in the environment or in `.env`, names a file that holds the value, as secrets are mounted.
"""

import os
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from dotenv import dotenv_values
from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from vendor_service.database.urls import masked_url
from vendor_service.errors import UsageError
from vendor_service.webhooks.networks import networks

_LARGEST_SECRET = 65_536  # bytes
# More is a typing error, or means none: no machine has it, and databases count no further.
_MOST, _MOST_BYTES = 10**9, 2**50
# compose leaves it so where `VENDOR_MODELS` names them.
_MAY_BE_EMPTY = frozenset({"VENDOR_MODEL"})

DtypeChoice = Literal["auto", "float32", "bfloat16", "float16", "int8"]
LogFormat = Literal["text", "json"]


class _NotTyped:
    """Marks a setting that is no option of `vendor serve`: a secret, or what hardly anybody changes."""


_NOT_TYPED = _NotTyped()


class Settings(BaseSettings):
    """Everything that can be set, with the values that hold when nothing is, and what each is for.

    All but those marked are options of `vendor serve` as well. Sizes are in bytes.
    """

    model_config = SettingsConfigDict(
        env_prefix="VENDOR_", env_file=".env", env_ignore_empty=True, extra="ignore", frozen=True
    )

    host: Annotated[str, Field(description="Address to listen on.")] = "127.0.0.1"
    port: Annotated[int, Field(description="Port; 0 takes a free one.", ge=0, le=65_535)] = 8000
    workers: Annotated[int, Field(description="Processes that serve, each with the model.", ge=1, le=256)] = 1
    admin_host: Annotated[str, Field(description="Address of the operators' API.")] = "127.0.0.1"
    admin_port: Annotated[
        int | None,
        Field(description="Port of the operators' API, /admin; 0 takes a free one.", ge=0, le=65_535),
    ] = None
    # Several only where the option is given several times; elsewhere the file `models` names them.
    model: Annotated[
        str | tuple[str, ...],
        NoDecode,
        Field(
            description="icon-clip, an open_clip name with its weights (ViT-B-16/openai), or local-dir:PATH; "
            "repeat it for several models, the first of which is the default. (default: icon-clip)"
        ),
    ] = "icon-clip"
    models: Annotated[
        Path | None,
        Field(description="File of several models, or of one with more to say; SIGHUP has it read again."),
    ] = None
    device: Annotated[str, Field(description="auto, cpu, cuda, or several: cuda:0,cuda:1")] = "auto"
    dtype: Annotated[DtypeChoice, Field(description="Arithmetic of the model.")] = "auto"
    database_url: Annotated[str, Field(description="Where the books are.")] = "sqlite:///tuition-vendor.db"
    migrate: Annotated[bool, Field(description="Bring a PostgreSQL database to this version first.")] = False
    trust_clock: Annotated[
        bool, Field(description="Charge although no date in the books is near the clock's."), _NOT_TYPED
    ] = False
    log_format: Annotated[LogFormat, Field(description="How to log to standard error.")] = "text"
    billing_log: Annotated[
        Path | None, Field(description="File for a line of JSON for each charge and refusal.")
    ] = None
    first_key_to: Annotated[
        Path | None, Field(description="At the first start, open an account and write its key to this file.")
    ] = None
    keys_in: Annotated[
        Path | None,
        Field(
            description="Folder of the keys that sign receipts and cookies and hash inputs, made if need be. "
            "(default: beside an SQLite database, else with the user's data)"
        ),
    ] = None
    # Who sells, as receipts say: customers ask at this URL.
    name: Annotated[
        str | None, Field(description="Who sells, as receipts say.", min_length=1, max_length=200), _NOT_TYPED
    ] = None
    public_url: Annotated[
        str | None, Field(description="The address that customers ask, as receipts say."), _NOT_TYPED
    ] = None
    sketches: Annotated[
        bool, Field(description="Keep sketches of how much of a model accounts have seen."), _NOT_TYPED
    ] = True
    console: Annotated[bool, Field(description="Serve customers a console at /console."), _NOT_TYPED] = True
    metrics_token: Annotated[
        SecretStr | None, Field(description="The token that GET /metrics asks for."), _NOT_TYPED
    ] = None

    max_inputs: Annotated[int, Field(description="Inputs of a request.", ge=1, le=_MOST), _NOT_TYPED] = 256
    max_request_bytes: Annotated[
        int, Field(description="Bytes of a request.", ge=1, le=_MOST_BYTES), _NOT_TYPED
    ] = 32 * 1024 * 1024
    max_image_bytes: Annotated[
        int, Field(description="Bytes of an image.", ge=1, le=_MOST_BYTES), _NOT_TYPED
    ] = 20 * 1024 * 1024
    max_image_pixels: Annotated[int, Field(description="Pixels of an image.", ge=1, le=_MOST), _NOT_TYPED] = (
        50_000_000
    )
    max_text_characters: Annotated[
        int, Field(description="Characters of a text.", ge=1, le=_MOST), _NOT_TYPED
    ] = 10_000
    max_queued_inputs: Annotated[
        int,
        Field(description="Inputs in hand, beyond which requests are turned away.", ge=1, le=_MOST),
        _NOT_TYPED,
    ] = 4096
    max_queued_bytes: Annotated[
        int,
        Field(description="Bytes of requests and images in hand, likewise.", ge=1, le=_MOST_BYTES),
        _NOT_TYPED,
    ] = 1024 * 1024 * 1024
    text_cache_bytes: Annotated[
        int,
        Field(description="Memory for the vectors of texts that were encoded before.", ge=0, le=_MOST_BYTES),
        _NOT_TYPED,
    ] = 64 * 1024 * 1024
    request_timeout_seconds: Annotated[
        int, Field(description="Seconds that a request may take.", ge=1, le=86_400), _NOT_TYPED
    ] = 120
    webhook_private_networks: Annotated[
        str,
        Field(description="Private networks on which receivers may be, as in 10.1.0.0/16,fd00::/8."),
        _NOT_TYPED,
    ] = ""
    batch_store: Annotated[
        str | None,
        Field(description="Folder or fsspec URL for files of bulk jobs; without it there are none."),
    ] = None
    batch_account_bytes: Annotated[
        int,
        Field(description="Bytes of files of bulk jobs that an account may have.", ge=1, le=_MOST_BYTES),
        _NOT_TYPED,
    ] = 16 * 1024**3
    batch_keep_days: Annotated[
        int, Field(description="Days for which files of bulk jobs are kept.", ge=1, le=366), _NOT_TYPED
    ] = 30
    verify_every_hours: Annotated[
        int,
        Field(description="Hours between two verifications of the ledger; 0: never.", ge=0, le=24 * 366),
        _NOT_TYPED,
    ] = 24

    @field_validator("model", mode="before")
    @classmethod
    def _one_or_several(cls, given: object) -> object:
        if not isinstance(given, list):
            return given
        return given[0] if len(given) == 1 else tuple(given)

    @field_validator("metrics_token")
    @classmethod
    def _a_token_guards(cls, token: SecretStr | None) -> SecretStr | None:
        # An empty one would open what it is to close.
        if token is not None and not token.get_secret_value().strip():
            raise ValueError("the token is empty; leave it out to let everybody read the metrics")
        return token

    @field_validator("name")
    @classmethod
    def _a_name_is_printable(cls, name: str | None) -> str | None:
        if name is not None and not name.isprintable():
            raise ValueError("it has characters that cannot be seen")
        return name

    @field_validator("public_url")
    @classmethod
    def _a_public_url_is_an_address(cls, url: str | None) -> str | None:
        if url is not None and not re.fullmatch(r"https?://[A-Za-z0-9.:\[\]-]+(/[!-~]*)?", url):
            raise ValueError("write the address that customers ask, as in https://vendor.example")
        return None if url is None else url.rstrip("/")

    @field_validator("webhook_private_networks")
    @classmethod
    def _networks_are_some(cls, listed: str) -> str:
        networks(listed)
        return listed

    @property
    def plain_metrics_token(self) -> str | None:
        """The token of `/metrics`, in the clear."""
        return None if self.metrics_token is None else self.metrics_token.get_secret_value()

    @model_validator(mode="after")
    def _a_request_fits(self) -> Self:
        for most, whole in (("max_inputs", "max_queued_inputs"), ("max_request_bytes", "max_queued_bytes")):
            if getattr(self, most) > getattr(self, whole):
                raise ValueError(
                    f"{_variable(most)} is more than {_variable(whole)}: it could never be served"
                )
        return self

    @model_validator(mode="after")
    def _the_file_names_all_models(self) -> Self:
        if self.models is not None and "model" in self.model_fields_set:
            raise ValueError(
                f"{_variable('models')} names a file with all models; leave {_variable('model')} out"
            )
        return self

    @property
    def tells_models_apart(self) -> bool:
        """Whether it may serve several models, now or later."""
        return self.models is not None or not isinstance(self.model, str)

    @classmethod
    def read(cls, **options: Any) -> Self:  # noqa: ANN401 - each setting has a type of its own
        """Take the options that were given, and the environment or the defaults for those that are `None`.

        Raises:
            UsageError: a value is not what its setting allows; the message names it.
        """
        try:
            cls._check_not_empty()
            settings = cls(**{name: value for name, value in options.items() if value is not None})
        except ValidationError as error:
            problems = "; ".join(
                " ".join(
                    [*(f"{name} ({_variable(str(name))}):" for name in problem["loc"][:1]), problem["msg"]]
                )
                for problem in error.errors()
            )
            raise UsageError(f"the settings are not valid: {problems}") from error
        except SettingsError as error:
            raise UsageError(str(error.__cause__ or error)) from error
        except OSError as error:
            raise UsageError(f"{cls._dotenv_file()} cannot be read: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise UsageError(f"{cls._dotenv_file()} is not UTF-8: {error}") from error
        return settings

    @classmethod
    def _check_not_empty(cls) -> None:
        """Refuse a variable without a value: it would be taken for one that is not there."""
        known = {_variable(name) for name in cls.model_fields} - _MAY_BE_EMPTY
        for found in (os.environ, _dotenv(cls)):
            for variable, value in found.items():
                name = variable.upper()
                if not (value or "").strip() and name.removesuffix("_FILE") in known:
                    raise UsageError(f"{name} is empty; leave it out for what holds without it")

    @classmethod
    def typed(cls) -> list[str]:
        """The settings that are options of `vendor serve`."""
        return [name for name, field in cls.model_fields.items() if _NOT_TYPED not in field.metadata]

    def sources(self, typed: Collection[str] = ()) -> list[dict[str, object]]:
        """Each setting, what holds, where that comes from, and what it is for."""
        here, there = {name.lower(): value for name, value in os.environ.items()}, _dotenv(type(self))
        rows = []
        for name, value in self.shown().items():
            variable = _variable(name).lower()
            known = {
                "an option": name in typed,
                "the environment": bool(here.get(variable)),
                f"the file {here.get(f'{variable}_file')}": bool(here.get(f"{variable}_file")),
                ".env": bool(there.get(variable)),
                f"the file {there.get(f'{variable}_file')}": bool(there.get(f"{variable}_file")),
            }
            source = next((each for each, is_it in known.items() if is_it), "default")
            meaning = type(self).model_fields[name].description
            rows.append({"setting": _variable(name), "value": value, "from": source, "for": meaning})
        return rows

    def shown(self) -> dict[str, object]:
        """The settings as they may be logged: secrets in the database's URL and the token are not."""
        return self.model_dump(mode="json") | {"database_url": masked_url(self.database_url)}

    @classmethod
    def unknown(cls) -> list[str]:
        """Variables of the environment and of `.env` that look like settings and are none."""
        known = {_variable(name) for name in cls.model_fields}
        named = {name.upper() for name in (*os.environ, *_dotenv(cls))}
        return sorted(
            name
            for name in named
            if name.startswith(_variable("")) and name.removesuffix("_FILE") not in known
        )

    @classmethod
    def _dotenv_file(cls) -> Path:
        return Path(str(cls.model_config.get("env_file"))).absolute()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the base class passes it
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Options first, then the environment and the files that it names, then `.env` and those it names."""
        named = _FilesSource(settings_cls, {name.lower(): value for name, value in os.environ.items()})
        named_there = _FilesSource(settings_cls, _dotenv(settings_cls))
        return init_settings, env_settings, named, dotenv_settings, named_there


class _FilesSource(EnvSettingsSource):
    """Reads `VENDOR_X` from the file that `VENDOR_X_FILE` names, where that is among the `variables`."""

    def __init__(self, settings_cls: type[BaseSettings], variables: Mapping[str, str | None]) -> None:
        super().__init__(settings_cls)
        self._variables = variables  # by their names in lower case

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        _, key, is_complex = super().get_field_value(field, field_name)
        named = self._variables.get(f"{self.env_prefix}{field_name}_file".lower())
        if not named:
            return None, key, is_complex
        try:
            with Path(named).open(encoding="utf-8") as file:
                value = file.read(_LARGEST_SECRET).strip()
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"{_variable(field_name)}_FILE cannot be read: {error}") from error
        if not value:
            raise UsageError(f"{_variable(field_name)}_FILE names an empty file: {named}")
        return value, key, is_complex


def _dotenv(settings_cls: type[BaseSettings]) -> dict[str, str | None]:
    file = settings_cls.model_config.get("env_file")
    if not isinstance(file, str) or not Path(file).is_file():
        return {}
    return {name.lower(): value for name, value in dotenv_values(file, encoding="utf-8").items()}


def _variable(name: str) -> str:
    return f"{Settings.model_config['env_prefix']}{name}".upper()
