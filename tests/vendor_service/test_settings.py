"""Settings: where they come from, what is refused, and what may be shown of them."""

from pathlib import Path

import pytest

from vendor_service.errors import UsageError
from vendor_service.settings import Settings

SECRET_URL = "postgresql://tuition:hunter2@database/books"


@pytest.fixture(autouse=True)
def somewhere_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_options_come_before_the_environment_files_and_dotenv(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".env").write_text("VENDOR_PORT=1\nVENDOR_MODEL=from-dotenv\nVENDOR_DEVICE=cpu\nOTHER=1\n")
    (tmp_path / "model").write_text("from-file\n")
    monkeypatch.setenv("VENDOR_PORT", "2")
    monkeypatch.setenv("VENDOR_MODEL_FILE", str(tmp_path / "model"))
    settings = Settings.read(host="0.0.0.0")
    assert (settings.host, settings.port, settings.model) == ("0.0.0.0", 2, "from-file")
    assert settings.device == "cpu"
    assert Settings.read(port=3).port == 3
    monkeypatch.setenv("VENDOR_MODEL", "from-environment")
    assert Settings.read().model == "from-environment"


@pytest.mark.parametrize(
    ("name", "value"),
    [("VENDOR_PORT", "70000"), ("VENDOR_DTYPE", "int8"), ("VENDOR_IMAGE_PRICE_MICROS", "-1")],
)
def test_what_is_not_valid_is_refused_by_its_variables_name(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match=rf"\({name}\): "):
        Settings.read()


def test_a_request_that_could_never_be_served_is_refused_at_the_start() -> None:
    with pytest.raises(UsageError, match="VENDOR_MAX_INPUTS is more than VENDOR_MAX_QUEUED_INPUTS"):
        Settings.read(max_inputs=10, max_queued_inputs=9)


def test_a_missing_file_is_refused_by_its_variables_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VENDOR_DATABASE_URL_FILE", "nowhere")
    with pytest.raises(UsageError, match=r"VENDOR_DATABASE_URL_FILE cannot be read: .*nowhere"):
        Settings.read()


def test_a_password_is_never_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "url").write_text(SECRET_URL)
    monkeypatch.setenv("VENDOR_DATABASE_URL_FILE", "url")
    settings = Settings.read()
    assert settings.database_url == SECRET_URL
    assert settings.shown()["database_url"] == "postgresql://tuition:***@database/books"
    assert "hunter2" not in str(settings.shown())
    assert "hunter2" not in str(Settings.read(database_url="hunter2 is not a URL").shown())


def test_a_misspelt_variable_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VENDOR_PRICE", "5")
    monkeypatch.setenv("VENDOR_DATABASE_URL_FILE", "url")
    assert Settings.unknown() == ["VENDOR_PRICE"]


def test_the_example_names_every_setting_with_its_default(tmp_path: Path) -> None:
    example = Path(__file__).resolve().parents[2] / ".env.example"
    lines = [line[1:] for line in example.read_text().splitlines() if line.startswith("#VENDOR_")]
    named = [line.partition("=")[0] for line in lines]
    assert sorted(named) == sorted(f"VENDOR_{name}".upper() for name in Settings.model_fields)
    (tmp_path / ".env").write_text("\n".join(lines))
    assert Settings.read() == Settings.model_construct()
