"""A trained student: what it says of images, and how often it is right."""

from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, computed_field

from client.api.checks import require_named
from client.api.confirm import Confirm, purchases
from client.data.finder import Skipped, counted, described
from client.data.kept_images import KeptImages
from client.data.listing import list_folder
from client.data.names import composed
from client.data.pictures import Pictures, pictures
from client.errors import ClientError, UsageError, VendorUnreachable
from client.learning.prediction import Classifier, Prediction, classify, ranked, rows_of
from client.learning.rejection import shows_none
from client.learning.student_metadata import StudentMetadata
from client.learning.transform import Transform
from client.options.students import AskOptions, PredictOptions
from client.paths import is_file
from client.progress import Display, ProgressListener
from client.results.answers_file import check_answers_file, write_answers
from client.results.evaluation import accuracy_by_domain
from client.results.frames import data_frame
from client.results.intervals import Interval, interval_of
from client.results.onnx_classifier import OnnxClassifier
from client.results.records import Name, Record
from client.runs.folder import RunFolder
from client.serving.answers import Answer, AnsweredBy
from client.serving.asking import VendorAnswers, open_asker, picture_queries
from client.serving.selection import least_sure, sure_of

if TYPE_CHECKING:  # torch takes seconds to import, and a student in an ONNX file needs none
    from pandas import DataFrame

    from client.learning.classifier import StudentModule
    from client.learning.estimator import StudentEstimator
    from client.learning.student import StudentNetwork

# Seconds to wait for another process that asks through the same cache.
_PATIENCE = 600.0


class Predictions(Record):
    """A student's answers about images.

    Attributes:
        classes: of each image that was read, its most probable classes with their probabilities (0 to 1),
            the best first; by the image's path, or "[0]", "[1]" ... where it has none, in the order given.
        skipped: pictures that cannot be read, with the reason.
        passed_over: files of folders and patterns that were left out on purpose, with the reason.
        answered_by: who answered about each image: "student"; or "vendor" (asked now) or "cache" (asked
            before), together with the student. Empty where no vendor was to be asked.
        named: the class of each image, or `None` where it shows none of them. Empty where nothing was to be
            rejected.
        queries_bought: queries that were paid for.
        cost_micros: what they cost, in millionths of the vendor's currency unit.
    """

    classes: dict[Name, dict[str, float]]
    skipped: dict[Name, Name]
    passed_over: dict[Name, Name]
    answered_by: dict[Name, AnsweredBy] = Field(default_factory=dict)
    named: dict[Name, str | None] = Field(default_factory=dict)
    queries_bought: int = 0
    cost_micros: int = 0

    def to_pandas(self) -> "DataFrame":
        """A row an image that was read, with its most probable class, and who answered, if that was asked.

        Raises:
            UsageError: pandas is not installed.
        """
        return data_frame(
            {
                "image": image,
                "predicted": next(iter(classes)),
                "confidence": next(iter(classes.values())),
                **({"named": self.named[image]} if self.named else {}),
                **({"answered_by": self.answered_by[image]} if self.answered_by else {}),
            }
            for image, classes in self.classes.items()
        )

    def rows(self) -> list[dict[str, object]]:
        """A row an image, as `client predict --json` prints them."""
        rows: list[dict[str, object]] = []
        for image, classes in self.classes.items():
            rows.append({"image": image, "classes": classes})
            if self.named:
                rows[-1]["class"] = self.named[image]
            if self.answered_by:
                rows[-1]["answered_by"] = self.answered_by[image]
        left_out = {**self.skipped, **self.passed_over}
        return rows + [{"image": name, "classes": {}, "skipped": why} for name, why in left_out.items()]

    def write(self, file: Path | str) -> None:
        """Write the answers to a .csv file, a row an image, the most probable class first.

        Raises:
            UsageError: it has another ending, or its folder does not exist or takes no files.
            ClientError: it cannot be written.
        """
        write_answers(Path(file), self.rows())


class DomainAccuracy(Record):
    """A student's accuracy in a domain.

    Attributes:
        accuracy: the share of right answers, from 0 to 1.
        images: on how many images.
        left_out: how many files of the domain were left out, by reason.
    """

    accuracy: float
    images: int
    left_out: dict[Name, int]

    @computed_field  # type: ignore[prop-decorator]
    @property
    def interval(self) -> Interval | None:
        """The 95% interval of the accuracy; `None` from 1,000 images on."""
        return interval_of(self.accuracy, self.images)


class Student:
    """A trained student, ready to predict.

    Wherever it takes images, it takes

    - paths of files and folders, and patterns ("shots/**/*.png");
    - images of Pillow's, as they are or opened from a file;
    - arrays of shape (height, width, 3) or (n, height, width, 3), and tensors of shape (3, height, width) or
      (n, 3, height, width), uint8 and RGB;
    - tables, of pandas say, with a column `path`;
    - lists and other iterables of these.

    They are decoded, turned, laid on white and resized as `client predict` does it with files.

    Attributes:
        classes: the names of its classes, in the order of its probabilities.
        image_size: side of its input in pixels.
        transform: makes uint8 tensors of shape (3, image_size, image_size) of images: what the student sees.
        metadata: what its file says of it.
    """

    def __init__(
        self, classifier: Classifier, metadata: Mapping[str, str], network: "StudentNetwork | None" = None
    ) -> None:
        """Use `load_student` instead.

        Args:
            classifier: gives probabilities.
            metadata: of its file.
            network: the PyTorch module behind it; `None` for a student in an ONNX file.
        """
        self.classes = tuple(classifier.classes)
        self.image_size = classifier.side
        self.transform = Transform(classifier.side)
        self.metadata = dict(metadata)
        self._metadata = StudentMetadata.from_file(metadata)
        self._classifier = classifier
        self._network = network

    def probabilities(self, images: Pictures) -> NDArray[np.float32]:
        """How likely each class is, float32 of shape (n, classes).

        Raises:
            UsageError: something is no image, or one of the wrong type, range or shape.
            DataError: an image cannot be read.
        """
        return rows_of(self._classifier.probabilities, pictures(images), self.image_size)

    def embed(self, images: Pictures) -> NDArray[np.float32]:
        """Embeddings, float32 of shape (n, d) and unit length, for an index or a classifier of one's own.

        They are in the teacher's space, where the student has learnt it; of a student that has learnt from
        labels alone, they are the features of its backbone.

        Raises:
            UsageError: as `probabilities`, or the student is in a .onnx file, which has no embeddings.
            DataError: as `probabilities`.
        """
        network = self._require_network("embeddings")
        from client.learning.classifier import StudentClassifier

        embeddings = StudentClassifier(network, self.classes).embeddings
        return rows_of(embeddings, pictures(images), self.image_size)

    def torch(self) -> "StudentModule":
        """A copy as an `nn.Module`, on the device where the student is, to train further or to export.

        Its `forward` takes pixels, uint8 of shape (n, 3, image_size, image_size), and gives logits of shape
        (n, classes), whose softmax is `probabilities`.

        Raises:
            UsageError: the student is in a .onnx file.
        """
        network = self._require_network("PyTorch module")
        from client.learning.classifier import StudentModule

        return StudentModule(deepcopy(network))

    def sklearn(self) -> "StudentEstimator":
        """An estimator of scikit-learn's: it classifies images, and transforms them to embeddings.

        Raises:
            UsageError: scikit-learn is not installed.
        """
        try:
            from client.learning.estimator import StudentEstimator
        except ImportError as error:
            raise UsageError("`sklearn()` needs scikit-learn: pip install 'tuition[sklearn]'.") from error
        return StudentEstimator(self)

    def _require_network(self, what: str) -> "StudentNetwork":
        if self._network is None:
            raise UsageError(
                f"A student in a .onnx file has no {what}: load its run's folder, or its .safetensors file."
            )
        return self._network

    def predict(
        self,
        images: Pictures,
        *,
        top: int = 5,
        reject: float | None = None,
        ask: AskOptions | None = None,
        out: str | Path | None = None,
        confirm: Confirm | None = None,
        progress: ProgressListener | None = None,
    ) -> Predictions:
        """Name the most probable classes of images.

        It spends nothing, unless a vendor is to be asked about those of which the student is least sure.

        Args:
            images: see above. In the answers, those without a path have the names "[0]", "[1]" ...
            top: how many classes to name.
            reject: the rate of false rejects on the hold-outs, from 0.01 to 0.5, at which images are taken to
                show none of the classes (`Predictions.named`); `None` for never.
            ask: about which images to ask which vendor; `None` for none.
            out: a .csv file to write the answers to (`Predictions.write`); `None` for none.
            confirm: is asked whether a purchase of more than five units may begin, unless the options say so.
                Without it such a purchase is refused.
            progress: is told which pictures cannot be read, and how many files are left out.

        Raises:
            UsageError: something is no image, or one of the wrong type, range or shape; a path does not
                exist, `out` cannot be written, nobody agreed to the purchase, or the student's file has no
                threshold for the rate of false rejects.
            FingerprintChanged: the vendor sells another model than the one that the student learnt from.
            ClientError: the vendor refuses the key, say. Of one that is away, a note says so.
        """
        options = PredictOptions(top=top, reject=reject, ask=ask)
        if out is not None:
            check_answers_file(Path(out))
        below = self._metadata.thresholds(options.reject, asks=ask is not None)
        left_out: list[Skipped] = []
        found = classify(self._classifier, pictures(images, left_out))
        # Pictures are held only where a vendor may be sent them: a stream may be larger than the memory.
        predictions = (
            list(found) if ask else [each._replace(picture=each.picture.emptied()) for each in found]
        )
        display = Display.of(progress)
        skipped = {each.picture.name: each.unreadable for each in predictions if each.unreadable}
        skipped |= {str(file.path): file.reason for file in left_out if file.is_loss}
        read = [each for each in predictions if not each.unreadable]
        answers, said = self._own_answers(read, below.student), VendorAnswers([])
        if ask is not None:
            answers, said = self._with_vendor(answers, read, ask, below.teacher, confirm, display)
        display.note_skipped(skipped, listed_in="--json")
        if by_reason := counted(file for file in left_out if not file.is_loss):
            display.note(f"Left out: {described(by_reason)}.")
        by_name = {each.picture.name: answer for each, answer in zip(read, answers, strict=True)}
        answered = Predictions(
            classes={name: ranked(a.probabilities, self.classes, options.top) for name, a in by_name.items()},
            skipped=skipped,
            passed_over={str(file.path): file.reason for file in left_out if not file.is_loss},
            answered_by={name: answer.answered_by for name, answer in by_name.items()} if ask else {},
            named={} if reject is None else {name: self._named(answer) for name, answer in by_name.items()},
            queries_bought=said.queries,
            cost_micros=said.cost_micros,
        )
        if out is not None:
            answered.write(out)
        return answered

    def _named(self, answer: Answer) -> str | None:
        return None if answer.rejected else self.classes[answer.probabilities.argmax()]

    def _own_answers(self, read: Sequence[Prediction], reject_below: float) -> list[Answer]:
        """The student's answers about images that were read."""
        rows = np.array([each.probabilities for each in read], np.float32)
        none = shows_none(rows.reshape(len(read), len(self.classes)), reject_below)
        return [Answer(row, "student", rejected=bool(no)) for row, no in zip(rows, none, strict=True)]

    def _with_vendor(
        self,
        own: Sequence[Answer],
        read: Sequence[Prediction],
        ask: AskOptions,
        reject_below: float,
        confirm: Confirm | None,
        display: Display,
    ) -> tuple[list[Answer], VendorAnswers]:
        """The student's answers about images that were read, with the vendor's where it is to be asked."""
        sure = sure_of(own)
        unsure = sorted(np.flatnonzero(least_sure(sure, ask.share)).tolist(), key=lambda place: sure[place])
        if not unsure:
            return list(own), VendorAnswers([])
        from client.runs.connection import Connection  # what speaks HTTP takes a moment to import

        connection = Connection(ask, display)
        queries = picture_queries([read[place].picture for place in unsure], connection.files)
        try:
            with open_asker(
                connection, ask, self.classes, self._metadata, reject_below, patience=_PATIENCE
            ) as asker:
                purchases(agreed=ask.agreed, confirm=confirm, takes_cap=False)(asker.price(queries))
                said = asker.ask(queries)
        except VendorUnreachable as error:
            said = VendorAnswers([None] * len(queries), stopped=str(error).rstrip("."))
        answers = list(own)
        for place, vendor in zip(unsure, said.of_each, strict=True):
            if vendor is not None:
                answers[place] = own[place].with_vendor(vendor)
        if ask.keep is not None:
            answered = [query for query, each in zip(queries, said.of_each, strict=True) if each is not None]
            problem = KeptImages(ask.keep, at_most=ask.keep_at_most).keep(
                query.content() for query in answered
            )
            if problem:
                display.note(f"Not all images that were asked about are kept: {problem}.")
        if said.stopped:
            alone = said.of_each.count(None)
            display.note(f"The student alone answered about {alone} of {len(unsure)} images: {said.stopped}.")
        return answers, said

    def _repr_html_(self) -> str:
        from client.results.asking import Right, asked_by_hold_outs
        from client.results.rendering import render

        known, right = self._metadata.reliability, self._metadata.teacher_accuracy
        asking = []
        if known is not None and right is not None:
            asked = asked_by_hold_outs(known, Right(right))
            asking = [(100 * each.share, 100 * each.accuracy) for each in asked]
        return render(
            "student_card.html",
            student=self._metadata,
            classes=self.classes,
            image_size=self.image_size,
            asking=asking,
        )


def load_student(path: Path | str, *, device: str = "auto") -> Student:
    """The student of a run's folder, or of a .safetensors or .onnx file.

    A .onnx file is run by onnxruntime, and PyTorch need not be installed.

    Args:
        path: the folder or file.
        device: "cpu", "cuda", "cuda:1" ...; "auto" takes a GPU if there is one.

    Raises:
        ClientError: there is no student.
        UsageError: there is no such device, or onnxruntime is not installed.
    """
    path = Path(path)
    if path.suffix == ".onnx":
        classifier = OnnxClassifier(path, device=device)
        return Student(classifier, classifier.texts)
    from client.learning.classifier import StudentClassifier

    network, metadata = load_network(path, device)
    classes = StudentMetadata.from_file(metadata).classes
    if classes is None:
        raise ClientError(f"{path} does not name the classes of a student.")
    return Student(StudentClassifier(network, classes), metadata, network)


def evaluate(
    student: Student | Path | str,
    data: Path | str,
    *,
    domains: Iterable[str] | None = None,
    layout: str | None = None,
    columns: Sequence[str] = (),
    device: str = "auto",
    progress: ProgressListener | None = None,
) -> dict[str, DomainAccuracy]:
    """Measure a student on every image of a folder, by domain; spends nothing.

    Images that it was trained on count too: `Run.summary` has its accuracy on hold-outs.

    Args:
        student: the student, or where it is.
        data: images with labels, as `DistillOptions.data` takes them.
        domains: only these; `None` for all.
        layout: which of its folders are domains and classes (`DistillOptions.layout`).
        columns: what a table calls its columns.
        device: where a student that is loaded here works.
        progress: is told how the work goes on.

    Raises:
        ClientError: there is no student.
        DataError: the folder has no labelled image or no such domain, or the student does not know a class
            of it.
    """
    from client.runs.evaluation import answers_by, read_for_evaluation

    require_named(Path(data))
    folder = list_folder(Path(data), layout=layout, columns=columns)
    chosen = [composed(name) for name in domains or folder.domains]
    loaded = student if isinstance(student, Student) else load_student(student, device=device)
    examples, left_out = read_for_evaluation(folder, chosen, Display.of(progress))
    answers = answers_by(loaded._classifier, folder, examples)
    accuracy = accuracy_by_domain([a.right for a in answers], [a.domain for a in answers])
    return {
        name: DomainAccuracy(
            accuracy=each.accuracy,
            images=each.images,
            left_out=counted(file for file in left_out if file.domain == name),
        )
        for name, each in accuracy.items()
    }


def load_network(where: Path, device: str) -> "tuple[StudentNetwork, dict[str, str]]":
    """The network and the metadata of a .safetensors file, or of the one in a run's folder."""
    from client.learning.processes import chosen_device
    from client.learning.student_file import load_student as load

    network, metadata = load(where if is_file(where) else RunFolder(where).student)
    return network.to(chosen_device(device)), metadata
