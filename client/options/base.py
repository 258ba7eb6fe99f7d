"""The base of all options: they are checked, described, and filled in from the environment."""

import os
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ModelWrapValidatorHandler, model_validator

from shared.declared import documented, option_of


class Options(BaseModel):
    """Options that go together.

    A value that an option does not take is refused by pydantic's `ValidationError`, before anything is done.
    `model_fields_set` names the options that somebody gave explicitly: in the call or on the command line,
    and not in the environment or in tuition.toml.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, defer_build=True)

    @classmethod
    def __pydantic_init_subclass__(cls, **_: Any) -> None:  # noqa: ANN401 (a class's keywords)
        """Let `help` show what each option means."""
        cls.__doc__ = documented(cls)

    @model_validator(mode="wrap")
    @classmethod
    def _from_environment(cls, given: Any, build: ModelWrapValidatorHandler[Self]) -> Self:  # noqa: ANN401
        """Take from the environment what is not given and has a variable."""
        if not isinstance(given, dict):
            return build(given)
        options = {name: option_of(info) for name, info in cls.model_fields.items()}
        replaced = {option.instead_of for name, option in options.items() if name in given}
        found = {
            name: os.environ[option.env]
            for name, option in options.items()
            if option.env and os.environ.get(option.env)
            if name not in given and name not in replaced and option.instead_of not in given
        }
        instance = build({**found, **given})
        instance.model_fields_set.difference_update(found)
        return instance
