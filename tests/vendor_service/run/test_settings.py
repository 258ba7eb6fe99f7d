"""Settings: where they come from, what is refused, and what may be shown of them."""

import errno
from contextlib import closing, suppress
from pathlib import Path

import pytest

from vendor_service.database.session import Database
from vendor_service.errors import OperatorError, UsageError
from vendor_service.run import settings as settings_module
from vendor_service.run.settings import Settings

NUMBERS = [name for name, field in Settings.model_fields.items() if field.annotation in (int, int | None)]
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
    [
        ("VENDOR_PORT", "70000"),
        ("VENDOR_DTYPE", "float8"),
        ("VENDOR_MAX_INPUTS", "5.5"),
        *((f"VENDOR_{name.upper()}", "9" * 26) for name in NUMBERS),
        ("VENDOR_NAME", "Vendor \u202eLtd"),
        ("VENDOR_PUBLIC_URL", "vendor.example"),
        ("VENDOR_PUBLIC_URL", "https://somebody@vendor.example"),
        ("VENDOR_PUBLIC_URL", "https://vendor.example\n"),
    ],
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


def test_a_dotenv_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"VENDOR_HOST=caf\xe9\n")
    with pytest.raises(UsageError, match=rf"{tmp_path / '.env'} is not UTF-8: .*byte 0xe9"):
        Settings.read()


def test_a_dotenv_that_may_not_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".env").touch()

    def refuse(file: str, encoding: str) -> dict[str, str | None]:
        raise PermissionError(errno.EACCES, "Permission denied", file)

    monkeypatch.setattr(settings_module, "dotenv_values", refuse)  # root may read everything
    with pytest.raises(UsageError, match=rf"{tmp_path / '.env'} cannot be read: Permission denied"):
        Settings.read()


def test_a_password_is_never_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "url").write_text(SECRET_URL)
    monkeypatch.setenv("VENDOR_DATABASE_URL_FILE", "url")
    settings = Settings.read()
    assert settings.database_url == SECRET_URL
    assert settings.shown()["database_url"] == "postgresql://tuition:***@database/books"
    assert "hunter2" not in str(settings.shown())
    assert "hunter2" not in str(Settings.read(database_url="hunter2 is not a URL").shown())


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://tuition@database/books?password=hunter2",
        "postgresql://tuition@database/books?sslmode=require&sslpassword=hunter2",
        "postgresql://tuition@database/books?pass%77ord=hunter2",
        "postgresql://tuition@database/books?PASSWORD=hunter2",
        "postgresql://tuition@database/books?options=-c%20tuition.secret%3Dhunter2",
        "postgresql://tuition:hunter2@one:5432,two:5432/books",
        "postgresql://tuition:hunter2@/books?host=one:5432&host=two:5432",
        "postgresql://tuition:hunter2%40@database/books",
        "postgresql://tuition:x@hunter2@database/books",
        "postgresql://tuition:x@hunter2/y@database/books",
        "postgresql://tuition:hunter2/x?y@database/books",
        "postgresql://:hunter2@database/books",
        "postgresql+psycopg://tuition:hunter2@database:port/books",
        "hunter2",
    ],
)
def test_a_password_is_masked_in_every_form_of_a_url(url: str, caplog: pytest.LogCaptureFixture) -> None:
    assert "hunter2" not in str(Settings.read(database_url=url).shown())
    with suppress(OperatorError), closing(Database(url)) as database:
        assert "hunter2" not in database.shown


def test_what_is_no_secret_is_shown() -> None:
    for url in (
        "postgresql://u:***@h:5432/books?sslmode=require&host=one&host=two",
        "sqlite:///folder@home/books.db",
    ):
        assert Settings.read(database_url=url).shown()["database_url"] == url


def test_a_misspelt_variable_is_found_wherever_it_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VENDOR_PRICE", "5")
    monkeypatch.setenv("VENDOR_DATABASE_URL_FILE", "url")
    (tmp_path / ".env").write_text(
        "VENDOR_PROT=80\nVENDOR_PORT=80\nvendor_modle=x\nVENDOR_MODEL_FILE=x\nHOME=x\n"
    )
    assert Settings.unknown() == ["VENDOR_MODLE", "VENDOR_PRICE", "VENDOR_PROT"]


@pytest.mark.parametrize("where", ["environment", "dotenv"])
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("VENDOR_METRICS_TOKEN_FILE", "empty"),
        ("VENDOR_METRICS_TOKEN_FILE", ""),
        ("VENDOR_METRICS_TOKEN", ""),
        ("VENDOR_METRICS_TOKEN", "  "),
        ("VENDOR_DATABASE_URL", ""),
        ("VENDOR_PORT", " "),
    ],
)
def test_an_empty_value_is_an_error_and_not_the_default(
    where: str, name: str, value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty").write_text("\n")
    if where == "environment":
        monkeypatch.setenv(name, value)
    else:
        (tmp_path / ".env").write_text(f"{name}='{value}'\n")
    with pytest.raises(UsageError, match=rf"{name}.*empty"):
        Settings.read()


def test_networks_are_looked_at_before_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VENDOR_WEBHOOK_PRIVATE_NETWORKS", "10.1.0.0/99")
    with pytest.raises(UsageError, match="VENDOR_WEBHOOK_PRIVATE_NETWORKS"):
        Settings.read()


def test_there_are_few_settings_each_with_a_reason_and_where_it_comes_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len(Settings.model_fields) <= 35
    assert all(field.description for field in Settings.model_fields.values())
    (tmp_path / ".env").write_text("VENDOR_DEVICE=cpu\n")
    (tmp_path / "url").write_text(SECRET_URL)
    monkeypatch.setenv("VENDOR_DATABASE_URL_FILE", "url")
    monkeypatch.setenv("VENDOR_METRICS_TOKEN", "t0ken")
    rows = {each["setting"]: each for each in Settings.read(port=1).sources(["port"])}
    found = {name: (rows[name]["value"], rows[name]["from"]) for name in rows}
    assert found["VENDOR_PORT"] == (1, "an option")
    assert found["VENDOR_DEVICE"] == ("cpu", ".env")
    assert found["VENDOR_DATABASE_URL"] == ("postgresql://tuition:***@database/books", "the file url")
    assert found["VENDOR_METRICS_TOKEN"] == ("**********", "the environment")
    assert found["VENDOR_HOST"] == ("127.0.0.1", "default")


def test_dotenv_may_name_files_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "token").write_text("t0ken\n")
    (tmp_path / ".env").write_text("VENDOR_METRICS_TOKEN_FILE=token\n")
    token = Settings.read().metrics_token
    assert token is not None
    assert token.get_secret_value() == "t0ken"


def test_the_example_names_every_setting_with_its_default(tmp_path: Path) -> None:
    example = Path(__file__).resolve().parents[3] / ".env.example"
    lines = [line[1:] for line in example.read_text().splitlines() if line.startswith("#VENDOR_")]
    named = [line.partition("=")[0] for line in lines]
    assert sorted(named) == sorted(f"VENDOR_{name}".upper() for name in Settings.model_fields)
    # A line without a value says that there is none, and is an error as it is.
    (tmp_path / ".env").write_text("\n".join(line for line in lines if not line.endswith("=")))
    assert Settings.read() == Settings.model_construct()
