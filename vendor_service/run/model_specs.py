"""Model specs: which models are to be served, on which terms; from the options, or from a file of models."""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from shared.embeddings import Kind
from shared.kinds import SomePriceFields
from vendor_service.encoder.sources import ModelSource, find_model
from vendor_service.errors import UsageError
from vendor_service.run.settings import DtypeChoice, Settings

# What a URL, a header and a label of Prometheus can all have in them.
_ID = r"^[A-Za-z0-9][A-Za-z0-9._/:@+-]*$"
_Count = Annotated[int, Field(ge=1, strict=True)]
_Plan = Annotated[str, Field(min_length=1, max_length=64)]


def _utc(moment: datetime) -> datetime:
    try:
        return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except OverflowError as error:
        raise ValueError("has no date in UTC") from error


_Moment = Annotated[datetime, AfterValidator(_utc)]


@dataclass(frozen=True)
class ModelSpec:
    """One model that is to be served.

    `device` and `dtype` are as the options of `vendor serve`; int8 is measured on the images of its
    `calibration`. `prices` are in micro-units by plan and kind: those of its first start. `max_queued_inputs`
    is how many inputs of this model alone may be in hand, and `None` where only the whole vendor has a bound.
    """

    id: str
    source: ModelSource
    device: str
    dtype: DtypeChoice
    calibration: Path | None
    compiled: bool
    text_cache_bytes: int
    max_inputs: int
    max_image_bytes: int
    max_image_pixels: int
    max_text_characters: int
    max_queued_inputs: int | None = None
    default: bool = True
    deprecated_at: datetime | None = None
    sunset_at: datetime | None = None
    prices: Mapping[str, Mapping[Kind, int]] = field(default_factory=dict)

    @property
    def loaded(self) -> "ModelSpec":
        """The same with what needs no other copy of the model, when it changes, left out."""
        return replace(
            self,
            max_inputs=0,
            max_queued_inputs=None,
            default=False,
            deprecated_at=None,
            sunset_at=None,
            prices={},
        )


class _Form(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Prices(SomePriceFields, _Form):
    """Prices of a plan; kinds that are not named have none of their own."""


class _Limits(_Form):
    max_inputs: _Count | None = None
    max_image_bytes: _Count | None = None
    max_image_pixels: _Count | None = None
    max_text_characters: _Count | None = None
    max_queued_inputs: _Count | None = None


class _Table(_Form):
    """One `[[model]]` of the file. What it leaves out is as the settings have it."""

    id: Annotated[str, Field(pattern=_ID, max_length=255)]
    source: str
    device: str | None = None
    dtype: DtypeChoice | None = None
    calibration: str | None = None
    compile: bool | None = None
    text_cache_bytes: Annotated[int, Field(ge=0, strict=True)] | None = None
    default: bool = False
    deprecated_at: _Moment | None = None
    sunset_at: _Moment | None = None
    prices: dict[_Plan, _Prices] = {}
    limits: _Limits = _Limits()


def find_specs(settings: Settings) -> list[ModelSpec]:
    """The models that the settings name, the default one first.

    Raises:
        UsageError: one of them does not exist, or the file of models is wrong.
    """
    if settings.models is not None:
        return _read(settings.models, settings)
    names = (settings.model,) if isinstance(settings.model, str) else settings.model
    sources = [find_model(name) for name in names]
    specs = [
        _spec(_Table.model_construct(id=each.id, default=not number), each, settings)
        for number, each in enumerate(sources)
    ]
    ids = [each.id for each in specs]
    if len(set(ids)) < len(ids):
        raise UsageError(f"--model names one model twice: {', '.join(ids)}")
    return specs


def _read(path: Path, settings: Settings) -> list[ModelSpec]:
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"the file of models cannot be read: {error}") from error
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{path} is not TOML: {error}") from error
    tables = content.pop("model", None)
    if content:
        raise UsageError(f"{path} has only tables [[model]], and no {', '.join(content)}")
    if not isinstance(tables, list) or not tables:
        raise UsageError(f"{path} has no table [[model]]")
    named = [(_name(number, table), table) for number, table in enumerate(tables, start=1)]
    specs = [_spec_of(path, name, table, settings) for name, table in named]
    _check_together(path, specs)
    return sorted(specs, key=lambda each: not each.default)


def _name(number: int, table: object) -> str:
    told = table.get("id") if isinstance(table, Mapping) else None
    return f"[[model]] {number}" + (f" ({told})" if isinstance(told, str) else "")


def _spec_of(path: Path, name: str, content: object, settings: Settings) -> ModelSpec:
    try:
        table = _Table.model_validate(content)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_context=False, include_input=False)[0]
        key = ".".join(map(str, problem["loc"])) or "the table"
        raise UsageError(f"{path}, {name}, {key}: {problem['msg']}") from error
    for key, most in _whole(settings).items():
        if (getattr(table.limits, key) or 0) > most:
            message = f"{most} is what this vendor takes at most; raise VENDOR_{key.upper()}"
            raise UsageError(f"{path}, {name}, limits.{key}: {message}")
    if table.sunset_at and (table.deprecated_at is None or table.sunset_at < table.deprecated_at):
        raise UsageError(f"{path}, {name}, sunset_at: no model ends before its deprecated_at")
    try:
        source = find_model(table.source)
    except UsageError as error:
        raise UsageError(f"{path}, {name}, source: {error}") from error
    return _spec(table, source, settings)


def _whole(settings: Settings) -> dict[str, int]:
    """The largest limits of all models, for reading a request whose model is not known yet."""
    return {name: getattr(settings, name) for name in _Limits.model_fields}


def _spec(table: _Table, source: ModelSource, settings: Settings) -> ModelSpec:
    limits, dtype = table.limits, table.dtype or settings.dtype
    if dtype == "int8" and table.calibration is None:
        raise UsageError(
            f"{table.id}: int8 takes a folder of images like those that customers will send: "
            "name it as `calibration` in a file of models (--models)"
        )
    return ModelSpec(
        id=table.id,
        source=replace(source, id=table.id),
        device=table.device or settings.device,
        dtype=dtype,
        calibration=None if table.calibration is None else Path(table.calibration),
        compiled=bool(table.compile),
        text_cache_bytes=_or(table.text_cache_bytes, settings.text_cache_bytes),
        max_inputs=_or(limits.max_inputs, settings.max_inputs),
        max_image_bytes=_or(limits.max_image_bytes, settings.max_image_bytes),
        max_image_pixels=_or(limits.max_image_pixels, settings.max_image_pixels),
        max_text_characters=_or(limits.max_text_characters, settings.max_text_characters),
        max_queued_inputs=limits.max_queued_inputs,
        default=table.default,
        deprecated_at=table.deprecated_at,
        sunset_at=table.sunset_at,
        prices={plan: each.by_kind for plan, each in table.prices.items()},
    )


def _or(own: int | None, whole: int) -> int:
    return whole if own is None else own


def _check_together(path: Path, specs: Sequence[ModelSpec]) -> None:
    defaults = [each.id for each in specs if each.default]
    if len(defaults) != 1:
        told = ", ".join(defaults) or "none"
        raise UsageError(f"{path}: exactly one [[model]] has default = true; here {told}")
    seen: set[str] = set()
    for number, each in enumerate(specs, start=1):
        if each.id in seen:
            raise UsageError(f"{path}, [[model]] {number} ({each.id}), id: another table has it already")
        seen.add(each.id)
