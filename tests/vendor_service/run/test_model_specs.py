"""The file of models: what it may leave out, and where it says that something is wrong."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from shared.embeddings import Limits
from tests.vendor_service.given_settings import GivenSettings
from vendor_service.embed.models import ModelTerms
from vendor_service.errors import UsageError
from vendor_service.run.model_specs import ModelSpec, find_specs

FIRST = '[[model]]\nid = "a"\nsource = "icon-clip"\ndefault = true\n'
SECOND = '[[model]]\nid = "b"\nsource = "ViT-B-16/openai"\n'


def read(tmp_path: Path, content: str) -> list[ModelSpec]:
    file = tmp_path / "models.toml"
    file.write_text(content)
    return find_specs(GivenSettings(models=file, device="cpu", dtype="float32", max_inputs=64))


def test_what_is_left_out_is_as_the_settings_have_it(tmp_path: Path) -> None:
    own = (
        'device = "cpu,cpu"\ndtype = "bfloat16"\ncompile = true\ntext_cache_bytes = 0\n'
        "deprecated_at = 2026-10-01\nsunset_at = 2027-01-31T12:00:00+01:00\n"
        "prices.research = {image_micros = 2}\nlimits = {max_inputs = 8, max_queued_inputs = 16}\n"
    )
    second, first = read(tmp_path, SECOND + own + FIRST)[::-1]
    assert (first.id, first.source.id, first.device, first.dtype) == ("a", "a", "cpu", "float32")
    assert (first.max_inputs, first.max_queued_inputs, first.compiled, first.prices) == (64, None, False, {})
    assert (second.source.name, second.source.pretrained) == ("ViT-B-16", "openai")
    assert (second.device, second.dtype, second.compiled) == ("cpu,cpu", "bfloat16", True)
    assert (second.text_cache_bytes, second.max_inputs, second.max_queued_inputs) == (0, 8, 16)
    assert second.deprecated_at == datetime(2026, 10, 1, tzinfo=UTC)
    assert second.sunset_at == datetime(2027, 1, 31, 11, tzinfo=UTC)
    assert second.prices == {"research": {"image": 2}}


def test_a_moment_with_an_offset_is_told_in_utc(tmp_path: Path) -> None:
    dates = "deprecated_at = 2027-01-01T01:00:00+02:00\nsunset_at = 2027-01-31T01:00:00+02:00\n"
    (spec,) = read(tmp_path, FIRST + dates)
    limits = Limits(max_inputs=1, max_request_bytes=1, max_image_bytes=1, max_image_pixels=1)
    terms = ModelTerms(limits, deprecated_at=spec.deprecated_at, sunset_at=spec.sunset_at)
    assert terms.headers == {"deprecation": "@1798758000", "sunset": "Sat, 30 Jan 2027 23:00:00 GMT"}


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("[[model]", "is not TOML"),
        ("", "has no table"),
        ("model = 1", "has no table"),
        ("[models]\n" + FIRST, "and no models"),
        (FIRST + SECOND + "color = 1", r"\[\[model\]\] 2 \(b\), color"),
        (FIRST + SECOND.replace('"b"', "7"), r"\[\[model\]\] 2, id"),
        (FIRST.replace('"a"', '"a b"'), r"\[\[model\]\] 1 \(a b\), id"),
        (FIRST.replace('id = "a"', ""), r"\[\[model\]\] 1, id: Field required"),
        (FIRST.replace("icon-clip", "icon-klip"), r"1 \(a\), source: .*icon-clip"),
        (FIRST + SECOND.replace("openai", "openay"), r"2 \(b\), source: .*openai"),
        (FIRST + SECOND.replace("/openai", ""), r"2 \(b\), source: .*as ViT-B-16/WEIGHTS: openai, "),
        (FIRST + 'dtype = "float8"', r"1 \(a\), dtype"),
        (FIRST + "prices.x = {image_micros = -1}", r"1 \(a\), prices\.x\.image_micros"),
        (FIRST + "prices.x = {image_micros = 1.5}", r"1 \(a\), prices\.x\.image_micros"),
        (FIRST + f"prices.{65 * 'x'} = {{image_micros = 1}}", r"1 \(a\), prices\.x{65}\..*64 characters"),
        (FIRST + 'prices."" = {image_micros = 1}', r"1 \(a\), prices\..*1 character"),
        (FIRST + "limits = {max_inputs = 65}", r"1 \(a\), limits\.max_inputs: 64 .*VENDOR_MAX_INPUTS"),
        (FIRST + "sunset_at = 2027-01-01", r"1 \(a\), sunset_at"),
        (FIRST + "deprecated_at = 0001-01-01T00:00:00+01:00", r"1 \(a\), deprecated_at: .*no date in UTC"),
        (FIRST + "deprecated_at = 2027-01-02\nsunset_at = 2027-01-01", r"1 \(a\), sunset_at"),
        (FIRST + SECOND.replace('"b"', '"a"'), r"2 \(a\), id: another"),
        (SECOND, "exactly one .*here none"),
        (FIRST + SECOND + "default = true", "exactly one .*here a, b"),
    ],
)
def test_what_is_wrong_is_told_by_table_and_key(tmp_path: Path, content: str, problem: str) -> None:
    with pytest.raises(UsageError, match=f"models.toml.*{problem}"):
        read(tmp_path, content)


def test_a_missing_file_is_named() -> None:
    with pytest.raises(UsageError, match=r"cannot be read: .*nowhere.toml"):
        find_specs(GivenSettings(models=Path("nowhere.toml")))


def test_options_name_one_model_or_several_the_first_of_which_is_the_default() -> None:
    (only,) = find_specs(GivenSettings(model="ViT-B-16/openai"))
    assert (only.id, only.default) == ("ViT-B-16/openai", True)
    several = find_specs(GivenSettings(model=("icon-clip", "ViT-B-16/openai")))
    assert [(each.id, each.default) for each in several] == [("icon-clip", True), ("ViT-B-16/openai", False)]


def test_a_model_that_is_named_twice_is_refused() -> None:
    with pytest.raises(UsageError, match="twice"):
        find_specs(GivenSettings(model=("icon-clip", "icon-clip")))


def test_int8_without_images_to_be_measured_on_is_refused() -> None:
    with pytest.raises(UsageError, match="`calibration` in a file of models"):
        find_specs(GivenSettings(dtype="int8"))


def test_a_file_of_models_and_one_model_are_not_both_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="VENDOR_MODELS names a file with all models; leave VENDOR_MODEL"):
        GivenSettings.read(models=Path("models.toml"), model="icon-clip")
