"""Settings for tests, apart from what takes seconds to import: a process that is given them imports this."""

from pydantic_settings import SettingsConfigDict

from vendor_service.run.settings import Settings


class GivenSettings(Settings):
    """Settings that ignore the environment and the `.env` of whoever runs the tests."""

    model_config = SettingsConfigDict(env_prefix="NOBODY_SETS_THIS_", env_file=None)
