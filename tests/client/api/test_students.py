"""A student in Python: every kind of image is seen as the command line sees it, and all else is refused."""

import gc
import json
import pickle
import weakref
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image, ImageDraw
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from torch.nn import functional

from client.api.students import Student, load_student
from client.cli.main import main
from client.data.images import decode_square, read_image
from client.errors import ClientError, DataError, UsageError
from client.learning.classifier import StudentClassifier
from client.learning.student import StudentNetwork, build_student
from client.learning.student_file import save_student
from client.results.onnx_export import export_onnx
from tests.client.toy import CLASSES, draw, tiny_backbone

SIDE = 32
METADATA = {"classes": json.dumps(CLASSES)}


def _network(head: str = "texts") -> StudentNetwork:
    torch.manual_seed(0)
    texts = None if head == "linear" else functional.normalize(torch.randn(3, 16), dim=1)
    network = build_student(
        tiny_backbone(SIDE),
        outputs=3 if head == "linear" else 16,
        text_head=texts,
        image_size=SIDE,
        trains_texts=head == "tuned",
    )
    network.temperature.fill_(30)
    return network.eval()


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a student that is not trained."""
    path = tmp_path_factory.mktemp("student") / "student.safetensors"
    save_student(_network(), "test_efficientnet", path, METADATA)
    return path


@pytest.fixture(scope="module")
def student(file: Path) -> Student:
    return load_student(file, device="cpu")


@pytest.fixture(scope="module")
def in_onnx(file: Path) -> Student:
    export_onnx(_network(), METADATA, file.with_suffix(".onnx"))
    return load_student(file.with_suffix(".onnx"), device="cpu")


def _scene(side: int = 60) -> Image.Image:
    """Something in every corner, so that a turn, a cut or another scale is seen."""
    noise = np.random.default_rng(side).integers(0, 256, (side * 3 // 4, side, 3), dtype=np.uint8)
    scene = Image.fromarray(noise)
    pen = ImageDraw.Draw(scene)
    pen.rectangle((0, 0, side // 2, side // 4), fill=(200, 30, 40))
    pen.ellipse((side // 2, side // 3, side - 2, side * 2 // 3), fill=(20, 60, 220))
    return scene


def _turned() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


def _see_through() -> Image.Image:
    scene = _scene().convert("RGBA")
    scene.putalpha(Image.linear_gradient("L").resize(scene.size))
    return scene


def _deep() -> Image.Image:
    return Image.fromarray((np.asarray(_scene().convert("L")).astype(np.uint16) << 8) + 77)


FILES: dict[str, Callable[[Path], None]] = {
    "plain.png": lambda path: _scene().save(path),
    "turned.jpg": lambda path: _scene().save(path, exif=_turned()),
    "large.jpg": lambda path: _scene(500).save(path),  # of which a fraction is decoded
    "large_turned.jpg": lambda path: _scene(400).save(path, exif=_turned()),
    "cmyk.jpg": lambda path: _scene().convert("CMYK").save(path),
    "grey.jpg": lambda path: _scene().convert("L").save(path),
    "palette.png": lambda path: _scene().quantize(16).save(path, transparency=3),
    "deep.png": lambda path: _deep().save(path),
    "deep.tif": lambda path: _deep().save(path),
    "alpha.png": lambda path: _see_through().save(path),
    "alpha.webp": lambda path: _see_through().save(path, lossless=True),
    "grey_alpha.png": lambda path: _see_through().convert("LA").save(path),
    "moving.gif": lambda path: _scene().save(
        path, save_all=True, append_images=[_scene(50).resize((60, 45))]
    ),
}


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("images")
    for name, write in FILES.items():
        write(folder / name)
    return [str(folder / name) for name in FILES]


def test_all_files_are_seen_as_the_command_line_sees_them_however_they_are_given(
    student: Student, file: Path, paths: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        main(["predict", str(file), *paths, "--json", "--top", "3", "--device", "cpu"])
    assert end.value.code == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["image"] for row in rows] == paths
    told = [row["classes"] for row in rows]
    opened = _opened(paths)
    table = file.with_name("table.csv")
    pd.DataFrame({"path": paths}).to_csv(table)
    assert student.transform(table).shape == (len(paths), 3, SIDE, SIDE)
    given: list[Any] = [
        paths,
        map(Path, paths),
        np.array(paths),
        pd.DataFrame({"path": paths, "label": "?"}),
        str(table),
        iter([pd.DataFrame({"path": paths[:5]}), *paths[5:]]),
        pd.Series(paths),
        opened,
    ]
    for images in given:
        found = student.predict(images)
        assert list(found.classes.values()) == told  # to the last digit, so the pixels are the same
    assert opened[2].size == (500, 375)  # a caller's image is left as it was
    assert [next(iter(told[0])), list(told[0].values())] == [
        CLASSES[int(student.probabilities(paths[0]).argmax())],
        pytest.approx(sorted(student.probabilities(paths[0])[0], reverse=True), abs=1e-5),
    ]
    for path in paths:
        seen = decode_square(read_image(Path(path)), SIDE)[0]
        for image in (path, *_opened([path])):
            assert np.array_equal(student.transform(image).permute(1, 2, 0), seen), path


def _opened(paths: list[str]) -> list[Image.Image]:
    return [Image.open(BytesIO(Path(path).read_bytes())) for path in paths]


def test_arrays_tensors_and_decoded_images_are_seen_as_a_file_of_their_pixels(
    student: Student, tmp_path: Path
) -> None:
    scenes = [_scene(60), _scene(60).transpose(Image.Transpose.ROTATE_180)]
    files = [tmp_path / f"{number}.png" for number in range(2)]
    for scene, path in zip(scenes, files, strict=True):
        scene.save(path)
    arrays = np.stack([np.asarray(scene) for scene in scenes])
    tensors = torch.from_numpy(arrays).permute(0, 3, 1, 2)
    expected = student.transform(files)
    assert expected.shape == (2, 3, SIDE, SIDE)
    assert expected.dtype == torch.uint8
    for several in (
        scenes,
        arrays,
        list(arrays),
        arrays[:, ::1],
        tensors,
        list(tensors),
        [tensors[:1], files[1]],
    ):
        assert torch.equal(student.transform(several), expected)
        assert next(iter(student.predict(several).classes)) == "[0]"
    for one in (files[0], str(files[0]), scenes[0], arrays[0], tensors[0]):
        assert torch.equal(student.transform(one), expected[0])
    assert torch.equal(student.transform(expected), expected)  # what it has made stays as it is
    answers = list(student.predict(files).classes.values())
    loader: Any = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(tensors))
    for batches in ((batch for (batch,) in loader), iter([scenes[0], tensors[1]])):
        assert list(student.predict(batches).classes.values()) == answers
    turned = Image.open(BytesIO(_bytes(scenes[0], exif=_turned()))).convert("RGB")  # which keeps its EXIF
    assert torch.equal(
        student.transform(turned), student.transform(scenes[0].transpose(Image.Transpose.ROTATE_270))
    )


def _bytes(image: Image.Image, **options: Any) -> bytes:
    content = BytesIO()
    image.save(content, "PNG", **options)
    return content.getvalue()


SQUARE = np.zeros((SIDE, SIDE, 3), np.uint8)
REFUSED: list[tuple[Any, str]] = [
    (SQUARE / 255, r"uint8, from 0 to 255, and this array is float64, from 0 to 0"),
    (torch.rand(3, 4, 4).clamp(0.25, 0.25), r"this tensor is float32, from 0\.25 to 0\.25"),
    (SQUARE.astype(np.int64), "this array is int64"),
    (SQUARE > 0, "this array is bool"),
    (SQUARE[:, :, 0], r"\(height, width, 3\), or \(n, height, width, 3\) of several.* \(32, 32\).*fromarray"),
    (np.zeros((3, 9, 9), np.uint8), r"this array has \(3, 9, 9\)"),
    (torch.zeros(9, 9, 3, dtype=torch.uint8), r"\(3, height, width\).* this tensor has \(9, 9, 3\)"),
    (np.zeros((9, 9, 4), np.uint8), r"\(9, 9, 4\)"),
    (np.zeros((1, 1, 9, 9, 3), np.uint8), r"\(1, 1, 9, 9, 3\)"),
    (3, "this is an int"),
    (None, "this is a NoneType"),
    (b"\x89PNG", "this is a bytes"),
    ({"path": "a.png"}, "this is a dict"),
    (np.array("a.png"), "this is a ndarray"),
    ([(SQUARE, 1)], r"\[0\] is a tuple"),
    ([SQUARE, 1.5], r"\[1\] is a float"),
    (iter([SQUARE, None]), r"\[1\] is a NoneType"),
    (pd.DataFrame({"file": ["a"], "n": [1]}), r"no column 'path' \(it has file, n\)"),
    (pd.DataFrame({"path": ["a", None]}), "Row 1 of the table has no path"),
    ([SQUARE, "nowhere.png"], r"nowhere\.png does not exist"),
    ("", "An empty name"),
]


@pytest.mark.parametrize(("given", "words"), REFUSED, ids=[words for _, words in REFUSED])
def test_what_is_no_image_of_eight_bits_is_refused_in_words(student: Student, given: Any, words: str) -> None:
    kept = list(given) if isinstance(given, Iterator) else None
    for call in (student.predict, student.probabilities, student.embed, student.transform):
        with pytest.raises(UsageError, match=words):
            call(iter(kept) if kept else given)


def test_an_image_that_cannot_be_read_is_passed_over_or_an_error(student: Student, tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(_bytes(_scene())[:300])
    unread = [
        Image.open(BytesIO(broken.read_bytes())),
        Image.new("F", (9, 9)),
        np.zeros((0, 9, 3), np.uint8),
        broken,
    ]
    found = student.predict([SQUARE, *unread, SQUARE])
    assert list(found.classes) == ["[0]", "[5]"]
    assert found.skipped == {
        "[1]": "not a readable picture",
        "[2]": "values of 32 bits: save it with 8 or 16",
        "[3]": "it has no pixels",
        str(broken): "not a readable picture",
    }
    for image, name in zip(unread, ("0", "0", "0", "broken"), strict=True):
        for call in (student.probabilities, student.embed, student.transform):
            with pytest.raises(DataError, match=f"{name}.* cannot be read.*`predict` passes over"):
                call([image])
    assert student.predict([]).classes == {}
    assert (student.probabilities([]).shape, student.embed([]).shape) == ((0, 3), (0, 16))


def test_of_a_stream_no_more_than_a_batch_is_held(student: Student) -> None:
    alive = most = 0

    def gone() -> None:
        nonlocal alive
        alive -= 1

    def stream() -> Iterator[Image.Image]:
        nonlocal alive, most
        for _ in range(200):
            image = Image.new("RGB", (4, 4))
            weakref.finalize(image, gone)
            alive += 1
            most = max(most, alive)
            yield image
            del image

    assert len(student.predict(stream()).classes) == 200
    assert most <= 130
    gc.collect()
    assert alive == 0


@pytest.mark.parametrize(("head", "dimensions"), [("texts", 16), ("tuned", 16), ("linear", 256)])
def test_embeddings_are_unit_vectors_of_the_teachers_space_or_features(head: str, dimensions: int) -> None:
    network = _network(head)
    student = Student(StudentClassifier(network, CLASSES), METADATA, network)
    vectors = student.embed([_scene(), _scene(40)])
    assert vectors.dtype == np.float32
    pixels = student.transform([_scene(), _scene(40)])
    with torch.no_grad():
        features = network.features(pixels)
        projector: Any = network.projector
        spaces: dict[str, Any] = {"texts": projector, "tuned": getattr(projector, "space", None)}
        expected = functional.normalize(spaces.get(head, torch.nn.Identity())(features), dim=1)
    assert vectors.shape == expected.shape == (2, features.shape[1] if head == "linear" else dimensions)
    assert np.allclose(vectors, expected, atol=1e-5)


def test_the_module_is_a_copy_that_can_be_trained_and_exported(student: Student) -> None:
    module = student.torch()
    pixels = student.transform([draw(shape, "white", "red", seed) for shape in CLASSES for seed in range(2)])
    before = student.probabilities(pixels)
    with torch.no_grad():
        assert np.allclose(module(pixels).softmax(dim=1), before, atol=1e-6)
    labels = torch.tensor([0, 0, 1, 1, 2, 2])
    optimizer = torch.optim.Adam(module.train().parameters(), lr=1e-3)
    losses = []
    for _ in range(5):
        loss = functional.cross_entropy(module(pixels), labels)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.5
    assert all(each.grad is not None for each in module.student.backbone.parameters())
    assert np.array_equal(student.probabilities(pixels), before)
    for wrong in (pixels / 255, pixels[0], pixels[:, :, :-1], pixels.permute(0, 2, 3, 1)):
        with pytest.raises(UsageError, match=r"uint8 \(0 to 255\) and shape \('n', 3, 32, 32\)"):
            module(wrong)
    batch = {0: torch.export.Dim("batch")}
    exported = torch.export.export(module.eval(), (pixels,), dynamic_shapes=(batch,)).module()
    assert torch.allclose(exported(pixels[:2]), module(pixels[:2]), atol=1e-4)


def test_the_estimator_does_what_pipelines_and_clones_need(student: Student, paths: list[str]) -> None:
    estimator = student.sklearn()
    probabilities = estimator.predict_proba(paths)
    assert np.array_equal(probabilities, student.probabilities(paths))
    named = estimator.predict(pd.Series(paths))
    assert named.tolist() == [estimator.classes_[row.argmax()] for row in probabilities]
    assert estimator.classes_.tolist() == list(CLASSES)
    assert estimator.score(paths, named) == 1
    copy = clone(estimator)
    assert copy is not estimator
    assert copy.student is estimator.get_params()["student"] is student
    assert clone(make_pipeline(estimator)).predict(paths).tolist() == named.tolist()
    labels = ["jpeg" if path.endswith(".jpg") else "other" for path in paths]
    pipeline = make_pipeline(estimator, LogisticRegression(C=1e6, max_iter=1000)).fit(paths, labels)
    assert pipeline.score(pd.DataFrame({"path": paths}), labels) == 1
    assert len(cross_val_score(pipeline, paths, labels, cv=2, error_score="raise")) == 2
    assert np.array_equal(pickle.loads(pickle.dumps(estimator)).transform(paths), student.embed(paths))


def test_a_student_in_onnx_answers_alike_and_says_what_it_cannot(
    student: Student, in_onnx: Student, paths: list[str]
) -> None:
    images = _opened(paths)
    assert np.allclose(in_onnx.probabilities(images), student.probabilities(paths), atol=1e-4)
    sent = pickle.loads(pickle.dumps(in_onnx.sklearn()))
    assert sent.predict(paths).tolist() == student.sklearn().predict(paths).tolist()
    with pytest.raises(ClientError, match=r"\.onnx file has no embeddings.*\.safetensors"):
        in_onnx.embed(images)
    with pytest.raises(ClientError, match=r"\.onnx file has no PyTorch module"):
        in_onnx.torch()
