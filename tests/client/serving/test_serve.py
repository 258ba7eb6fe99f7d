"""`client serve`: a real student behind a real server answers as `client predict` does, without PyTorch."""

import base64
import errno
import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from PIL import Image

import client
from benchmarks.load import form, request
from client.errors import UsageError
from client.results.onnx_export import made_up_pictures
from client.results.onnx_quantization import write_int8
from client.results.records import ExportedFile, Exports
from client.runs.folder import RunFolder
from client.serving.app import LIMITS
from client.serving.student import load
from shared.errors import ErrorBody, ErrorCode
from tests.client.results.test_records import SUMMARY
from tests.client.serving.conftest import DEPLOYED, PROJECT, SIDE, absent
from tests.client.toy import CLASSES, draw
from tests.support.forking import ForkedCommand
from tests.support.student_process import StudentProcess
from tests.support.vendor_process import wait_until


def picture(seed: int = 0, form: str = "PNG", mode: str = "RGB", side: int = 40, **options: Any) -> bytes:
    """An image file of a toy shape and noise."""
    image = draw(CLASSES[seed % 3], "white", "red", seed=seed, side=max(40, side))
    noise = np.random.default_rng(seed).integers(0, 60, (image.height, image.width, 3), dtype=np.uint8)
    image = Image.fromarray(np.asarray(image) // 2 + noise)
    buffer = BytesIO()
    image.convert(mode).save(buffer, form, **options)
    return buffer.getvalue()


def ask(http: httpx.Client, *files: bytes, **fields: str) -> httpx.Response:
    """Send files as a form."""
    parts = [("image", (f"{number}.png", file)) for number, file in enumerate(files)]
    return http.post("/classify", files=parts, data=fields)


def error_of(answer: httpx.Response) -> tuple[str, str | None]:
    """The code and the place of an error, after checking that the body is the contract's."""
    error = ErrorBody.model_validate_json(answer.content).error
    assert error.request_id == answer.headers["x-request-id"]
    assert answer.status_code == ErrorCode(error.code).kind.status
    return error.code, error.param


FILES = {
    "a.png": picture(1),
    "transparent.png": picture(2, mode="RGBA"),
    "grey.png": picture(3, mode="L"),
    "photo.jpg": picture(4, "JPEG", side=300),
    "turned.jpg": picture(5, "JPEG", exif=Image.Exif()),
    "c.webp": picture(6, "WEBP"),
    "d.gif": picture(7, "GIF", mode="P"),
    "e.tiff": picture(8, "TIFF"),
    "f.bmp": picture(9, "BMP"),
}


def test_it_answers_as_client_predict_does_to_the_digit(
    http: httpx.Client, run: Path, tmp_path: Path
) -> None:
    for name, content in FILES.items():
        (tmp_path / name).write_bytes(content)
        command = [sys.executable, "-m", "client", "predict", str(run / "student.onnx"), name, "--json"]
        done = name != "a.png" or subprocess.run(command, cwd=tmp_path, capture_output=True, check=True)
        student = client.load_student(run / "student.onnx")
        expected = student.predict(tmp_path / name).classes[str(tmp_path / name)]
        if isinstance(done, subprocess.CompletedProcess):
            assert json.loads(done.stdout) == [{"image": name, "classes": expected}]
        (result,) = http.post("/classify", files=[("image", (name, content))]).json()["results"]
        assert {each["class"]: each["confidence"] for each in result["top"]} == expected
        assert (result["class"], result["confidence"]) == next(iter(expected.items()))
        assert (result["name"], result["answered_by"]) == (name, "student")


def test_forms_and_json_are_answered_alike_in_order(http: httpx.Client) -> None:
    files = list(FILES.items())
    form = http.post("/classify", files=[("image", each) for each in files], data={"top": "2"})
    inputs = [{"image": base64.b64encode(content).decode(), "name": name} for name, content in files]
    as_json = http.post("/classify", json={"inputs": inputs, "top": 2})
    assert form.status_code == as_json.status_code == 200
    assert set(form.json()) == {"results", "cost_micros"}
    assert form.json()["cost_micros"] == 0
    assert [each["name"] for each in form.json()["results"]] == list(FILES)
    assert {len(each["top"]) for each in form.json()["results"]} == {2}
    for one, other in zip(form.json()["results"], as_json.json()["results"], strict=True):
        assert one["class"] == other["class"]
        assert one["confidence"] == pytest.approx(other["confidence"], abs=1e-5)
    (unnamed,) = http.post("/classify", json={"inputs": [{"image": inputs[0]["image"]}]}).json()["results"]
    assert unnamed["name"] is None


def test_it_says_which_student_it_is(http: httpx.Client, run: Path, served: StudentProcess) -> None:
    card = http.get("/v1/student").json()
    assert card["fingerprint"] == hashlib.sha256((run / "student.onnx").read_bytes()).hexdigest()
    assert (card["name"], card["classes"], card["image_size"]) == ("shapes", list(CLASSES), 32)
    assert (card["method"], card["backbone"]) == ("vl2v-adip", "test_efficientnet")
    assert card["expected_accuracy"] == {
        **json.loads(json.dumps(SUMMARY["accuracy"])),
        "target_domain": SUMMARY["target_domain"],
        "adapted": False,
        "weights_known": True,
        "leave_one_out": SUMMARY["leave_one_out"],
    }
    assert card["limits"]["max_inputs"] == 256
    assert served.facts == "student shapes, 3 classes, 32 px"


def test_probes_and_metrics_need_nothing(http: httpx.Client) -> None:
    assert ask(http, picture(), picture(1)).status_code == 200
    ask(http, b"no picture")
    assert http.get("/livez").json() == {"status": "alive"}
    assert http.get("/readyz").json() == {"status": "ready"}
    text = http.get("/metrics").text
    found = {
        line.rpartition(" ")[0]: float(line.rpartition(" ")[2])
        for line in text.splitlines()
        if line[0] != "#"
    }
    assert found['tuition_images_total{answered_by="student"}'] >= 2
    assert found['tuition_requests_total{method="POST",route="/classify",status="200"}'] >= 1
    assert found['tuition_refusals_total{code="invalid_image"}'] >= 1
    assert found["tuition_batch_size_count"] >= 1
    assert found["tuition_queue_images"] == 0


def test_many_callers_share_batches_and_each_gets_his_own_answers(
    http: httpx.Client, served: StudentProcess
) -> None:
    files = [picture(seed) for seed in range(24)]
    alone = [ask(http, file).json()["results"][0] for file in files]
    before = _batches(http)
    with httpx.Client(base_url=served.url, timeout=60) as crowd, ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda number: ask(crowd, files[number % 24]).json(), range(240)))
    for number, answer in enumerate(answers):
        (result,) = answer["results"]
        assert result["class"] == alone[number % 24]["class"]
        assert result["confidence"] == pytest.approx(alone[number % 24]["confidence"], abs=1e-5)
    assert _batches(http) - before < 240


def _batches(http: httpx.Client) -> float:
    (line,) = [
        each for each in http.get("/metrics").text.splitlines() if each.startswith("tuition_batch_size_count")
    ]
    return float(line.split()[1])


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        ({"inputs": []}, "empty_input", "inputs"),
        ({"inputs": [{"image": ""}]}, "empty_input", "inputs.0.image"),
        ({"inputs": [{"image": "no base64!"}]}, "invalid_image", "inputs.0.image"),
        ({"inputs": [{"text": "a cat"}]}, "invalid_request", "inputs.0.text"),
        ({"inputs": [{"image": "AAAA"}] * 257}, "too_many_inputs", "inputs"),
        ({"inputs": [{"image": "AAAA"}], "top": 0}, "invalid_request", "top"),
        ({"inputs": [{"image": "AAAA"}], "model": "x"}, "invalid_request", "model"),
        ([], "invalid_request", None),
    ],
)
def test_what_breaks_the_contract_is_refused_with_its_place(
    http: httpx.Client, body: Any, code: str, param: str | None
) -> None:
    assert error_of(http.post("/classify", json=body)) == (code, param)


def test_bodies_are_bounded_as_the_vendors_are(http: httpx.Client) -> None:
    assert error_of(ask(http, bytes(33 * 2**20)))[0] == "request_too_large"
    assert error_of(ask(http, bytes(21 * 2**20))) == ("image_too_large", "inputs.0.image")
    assert error_of(http.post("/classify", content=b"x", headers={"content-type": "text/plain"})) == (
        "unsupported_media_type",
        "content-type",
    )
    form = {"image": ("a.png", picture())}
    assert error_of(http.post("/classify", files=form, data={"text": "a cat"})) == ("invalid_request", "text")
    assert error_of(http.get("/classify"))[0] == "method_not_allowed"
    assert error_of(http.get("/nothing"))[0] == "not_found"
    assert error_of(http.get("/?" + "x" * 9000))[0] == "invalid_request"


def test_a_picture_that_cannot_be_read_fails_its_request_or_is_passed_over(http: httpx.Client) -> None:
    files = (picture(1), b"no picture", picture(2))
    assert error_of(ask(http, *files)) == ("invalid_image", "inputs.1.image")
    skipped = ask(http, *files, on_error="skip").json()
    assert [each["name"] for each in skipped["results"]] == ["0.png", "2.png"]
    (error,) = skipped["errors"]
    assert (error["index"], error["name"], error["code"]) == (1, "1.png", "invalid_image")


def test_only_those_with_a_key_are_answered(run: Path, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text(f"# of the shop\nshop {hashlib.sha256(b'open sesame').hexdigest()}\n")
    with (
        StudentProcess(run / "student.onnx", tmp_path, "--api-keys", str(keys), "--threads", "1") as served,
        httpx.Client(base_url=served.url, timeout=60) as http,
    ):
        assert error_of(ask(http, picture()))[0] == "invalid_api_key"
        assert (
            error_of(http.get("/v1/student", headers={"authorization": "Bearer open"}))[0]
            == "invalid_api_key"
        )
        assert http.get("/readyz").status_code == http.get("/").status_code == 200
        http.headers["authorization"] = "Bearer open sesame"
        assert ask(http, picture()).status_code == 200
        assert http.get("/v1/student").json()["expected_accuracy"] is None
    log = served.log.read_text()
    assert "account_id=shop" in log
    assert "open sesame" not in log


def test_it_finishes_what_it_has_when_it_is_told_to_stop(run: Path, tmp_path: Path) -> None:
    body, kind = form([picture()])
    whole = request("/classify", body, content_type=kind)
    with StudentProcess(run, tmp_path) as served:
        with (
            httpx.Client(base_url=served.url) as other,
            socket.create_connection(("127.0.0.1", served.port), timeout=30) as caller,
        ):
            caller.sendall(whole[:-500])
            wait_until(lambda: "tuition_requests_in_flight 2.0" in other.get("/metrics").text)
            served.send(signal.SIGTERM)
            wait_until(lambda: error_of(ask(other, picture()))[0] == "shutting_down")
            assert error_of(other.get("/readyz"))[0] == "shutting_down"
            caller.sendall(whole[-500:])
            assert caller.recv(4096).startswith(b"HTTP/1.1 200 ")
        assert served.stop() == 0
    log = served.log.read_text()
    assert 0 < log.index("INFO stopping: ") < log.index("INFO stopped")


def test_ctrl_c_is_how_serving_ends_and_no_interruption(run: Path, tmp_path: Path) -> None:
    with StudentProcess(run / "student.onnx", tmp_path) as served:
        assert served.stop(signal.SIGINT) == 0
    log = served.log.read_text()
    assert "INFO stopped" in log
    assert "Interrupted" not in log


def refused_start(*arguments: str, folder: Path) -> tuple[int, str]:
    """How `client serve` ends that does not start, and what it says."""
    log = folder / "refused.log"
    log.write_text("")
    process = ForkedCommand("client.cli.main", ["serve", *arguments], folder, os.environ, log)
    _, said = process.communicate(timeout=60)
    assert "Traceback" not in said
    return process.wait(), " ".join(said.split())


def test_what_cannot_be_served_is_said_with_its_exit_code(run: Path, tmp_path: Path) -> None:
    (tmp_path / "no.onnx").write_bytes(b"no model" * 99)
    (tmp_path / "student.safetensors").write_bytes(b"x")
    (tmp_path / "empty").mkdir()
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / "config.json").write_text("{}")
    (tmp_path / "keys").write_text("shop open-sesame\n")
    (tmp_path / "none").write_text("# nobody yet\n")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        for arguments, code, words in (
            (["no.onnx"], 1, "no.onnx is damaged or is not a student"),
            (["student.safetensors"], 2, "client export student.safetensors --out student.onnx"),
            (["missing"], 2, "missing does not exist"),
            (["empty"], 2, "empty is no run"),
            (["begun"], 2, "begun has no student.onnx"),
            ([str(run), "--api-keys", "keys"], 2, "line 1 is not a name and the SHA-256 of a key"),
            ([str(run), "--api-keys", "none"], 2, "holds no key"),
            ([str(run), "--api-keys", "absent"], 2, "absent cannot be read"),
            ([str(run), "--port", port], 1, "choose another --port"),
            ([str(run), "--host", "192.0.2.1"], 1, "choose another --host"),
        ):
            ended, said = refused_start(*arguments, folder=tmp_path)
            assert (ended, words in said) == (code, True), (arguments, ended, said)


def test_a_student_in_eight_bits_states_what_was_measured_of_it_or_nothing(run: Path, tmp_path: Path) -> None:
    small = RunFolder(tmp_path)
    write_int8(run / "student.onnx", small.onnx, [made_up_pictures(SIDE)])
    shutil.copy(run / "summary.json", small.summary)
    assert load(small.path, LIMITS).card.expected_accuracy is None
    size = small.onnx.stat().st_size
    files = [
        ExportedFile(
            kind=kind,
            size_bytes=size_bytes,
            milliseconds=1,
            images_per_second=1,
            in_domain=in_domain,
            out_of_domain=0.25,
            out_of_domain_interval=(0.1, 0.4),
        )
        for kind, size_bytes, in_domain in (("float32", 4 * size, 0.75), ("int8", size, 0.5))
    ]
    small.write(small.exports, Exports(files=files).to_json())
    expected = load(small.path, LIMITS).card.expected_accuracy
    assert expected is not None
    assert (expected.in_domain, expected.out_of_domain, expected.by_domain) == (0.5, 0.25, {})
    assert expected.out_of_domain_interval == (0.1, 0.4)
    shutil.copy(run / "student.onnx", small.onnx)
    expected = load(small.path, LIMITS).card.expected_accuracy
    assert expected is not None
    assert expected.in_domain == SUMMARY["accuracy"]["in_domain"]


def test_a_folder_that_may_not_be_listed_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(path: Path) -> list[str]:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(os, "listdir", forbidden)
    with pytest.raises(UsageError, match=f"{tmp_path} cannot be read: Permission denied"):
        load(tmp_path, LIMITS)


def test_what_serving_takes_is_named_where_it_is_missing(run: Path) -> None:
    serve = f"from client.cli.main import main; main(['serve', {str(run)!r}])"
    code = f"import sys; sys.modules['uvicorn'] = None; {serve}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, "pip install 'tuition[serve]'" in done.stderr) == (2, True), done.stderr


def _other_model(path: Path, output: str) -> None:
    """A file with the metadata of a student that answers each picture with its brightness, under a name."""
    pixels = helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["batch", 8, 8, 3])
    answer = helper.make_tensor_value_info(output, TensorProto.FLOAT, ["batch", 1, 1, 1])
    nodes = [
        helper.make_node("Cast", ["pixels"], ["numbers"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["numbers"], [output], axes=[1, 2, 3]),
    ]
    graph = helper.make_graph(nodes, "other", [pixels], [answer])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    for key, value in (("classes", '["cat", "dog"]'), ("image_size", "8")):
        model.metadata_props.add(key=key, value=value)
    onnx.save(model, path)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("reliability", "0.9, 0.8"),
        ("reliability", "[[1]]"),
        ("teacher_accuracy", "high"),
        ("teacher_temperature", "warm"),
    ],
)
def test_what_a_file_says_of_its_student_and_cannot_be_is_said(
    run: Path, tmp_path: Path, key: str, value: str
) -> None:
    model = onnx.load(run / "student.onnx")
    told = {each.key: each.value for each in model.metadata_props}
    sure = {"reliability": "[[0.5, 0.5, 9]]", "teacher_accuracy": "0.9"}
    helper.set_model_props(model, told | sure | {key: value})
    onnx.save(model, tmp_path / "student.onnx")
    ended, said = refused_start("student.onnx", folder=tmp_path)
    assert (ended, "The student's file is damaged" in said) == (1, True), said


@pytest.mark.parametrize("output", ["probabilities", "scores"])
def test_a_student_of_another_version_is_said_to_be_one(tmp_path: Path, output: str) -> None:
    _other_model(tmp_path / "student.onnx", output)
    ended, said = refused_start("student.onnx", folder=tmp_path)
    assert (ended, "is not a student of this version" in said) == (1, True), said


@pytest.mark.parametrize("content", ["{", "[]", '{"method": "erm"}'])
def test_a_summary_that_is_none_of_this_version_is_said_to_be_one(
    run: Path, tmp_path: Path, content: str
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "student.onnx").write_bytes((run / "student.onnx").read_bytes())
    (tmp_path / "run" / "summary.json").write_text(content)
    ended, said = refused_start("run", folder=tmp_path)
    assert (ended, "summary.json" in said) == (1, True), said


def test_of_a_folder_of_runs_the_newest_student_is_served(run: Path, tmp_path: Path) -> None:
    content = (run / "student.onnx").read_bytes()
    for number, name in enumerate(("older", "newer", "oldest")):
        (tmp_path / "runs" / name).mkdir(parents=True)
        file = tmp_path / "runs" / name / "student.onnx"
        file.write_bytes(content)
        os.utime(file, (10_000 * (number % 2),) * 2)
    with StudentProcess(tmp_path / "runs", tmp_path) as served:
        assert "student newer," in served.facts


def test_it_imports_nothing_that_it_is_not_deployed_with(http: httpx.Client, served: StudentProcess) -> None:
    # It was started where these cannot be imported, and answers; the other tests ask it the rest.
    assert {"torch", "torchvision", "timm", "open_clip", "accelerate", "safetensors", "onnx"} <= absent()
    project = PROJECT["project"]
    assert {*DEPLOYED} <= {*project["dependencies"], *project["optional-dependencies"]["serve"]}
    assert ask(http, picture()).status_code == 200
    assert "Traceback" not in served.log.read_text()


@pytest.mark.parametrize(
    "command", [("predict", "student.onnx", "a.png"), ("export", "student.onnx", "--web", "page")]
)
def test_these_take_no_more_than_a_deployed_student_either(
    run: Path, tmp_path: Path, command: tuple[str, ...]
) -> None:
    shutil.copy(run / "student.onnx", tmp_path)
    (tmp_path / "a.png").write_bytes(picture())
    without = f"import sys; sys.modules.update(dict.fromkeys({absent()!r})); "
    program = [sys.executable, "-c", f"{without}from client.cli.main import main; main()"]
    done = subprocess.run([*program, *command], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
