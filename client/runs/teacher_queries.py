"""The queries of a run to its teacher, in the order in which they are bought."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain

from client.data.examples import Example
from client.data.manifests import styles_of
from client.data.wording import Sentences
from client.errors import UsageError
from client.learning.methods import method_of
from client.purchase.plan import Tranche, TrancheName, purchase_order
from client.purchase.selection import image_order
from client.runs.config import RunConfig
from client.runs.dataset import Dataset, unseen
from client.vendors.query import Query

# So many labelled images tell whether to buy more of a teacher, where bulk jobs would take days to tell.
_PROBED = 100


@dataclass(frozen=True)
class ImageQueries:
    """One tranche of images in the order of purchase: the position of each in the data set, and its query."""

    name: TrancheName
    positions: list[int]
    queries: list[Query]


@dataclass(frozen=True)
class TeacherQueries:
    """The queries of a run to its teacher.

    Attributes:
        sentences: about each class; one each, unless the method or somebody asks more.
        images: the tranches of images, in the order of purchase. Hold-outs need no query.
    """

    sentences: Sentences
    images: tuple[ImageQueries, ...]

    @cached_property
    def prompts(self) -> list[Query]:
        """The queries about the sentences, class by class."""
        return [Query.text(each) for each in self.sentences.all]

    @property
    def all(self) -> list[Query]:
        """Every query in the order of purchase, some of them perhaps alike."""
        return [*self.prompts, *chain.from_iterable(tranche.queries for tranche in self.images)]

    def of(self, name: TrancheName) -> ImageQueries:
        """A tranche of images; an empty one where nothing of the kind is asked."""
        return next((each for each in self.images if each.name == name), ImageQueries(name, [], []))

    def lots(self, queries: Sequence[Query]) -> tuple[list[Query], list[Query], list[Query]]:
        """Some of these as they are bought: texts, labelled images, and the rest once these are checked."""
        first = set(self.of("labelled").queries)
        texts = [query for query in queries if query.kind == "text"]
        labelled = [query for query in queries if query in first]
        return texts, labelled, [query for query in queries if query.kind == "image" and query not in first]

    @property
    def needed_first(self) -> list[Query]:
        """What is bought directly before a bulk job is begun, so that there is one job and not three.

        It is the texts and, where labelled images tell whether more are worth buying, the first of these.
        """
        decides = any(each.name != "labelled" and each.queries for each in self.images)
        return [*self.prompts, *(self.of("labelled").queries[:_PROBED] if decides else ())]

    def tranches(self, dataset: Dataset) -> list[Tranche]:
        """The same as a purchase is planned by."""
        return [
            Tranche("texts", self.prompts),
            *(
                Tranche(each.name, each.queries, [dataset.stratum(position) for position in each.positions])
                if each.name != "unlabelled"
                else Tranche(each.name, each.queries)
                for each in self.images
            ),
        ]

    def first(self, count: int, dataset: Dataset) -> "TeacherQueries":
        """The same up to so many distinct queries in the order of purchase; all class prompts stay."""
        return self.only(purchase_order(self.tranches(dataset))[:count])

    def only(self, queries: Sequence[Query]) -> "TeacherQueries":
        """The same without the images that are not among these; all class prompts stay."""
        chosen = set(queries)

        def kept(tranche: ImageQueries) -> ImageQueries:
            pairs = zip(tranche.positions, tranche.queries, strict=True)
            rows = [(position, query) for position, query in pairs if query in chosen]
            return ImageQueries(tranche.name, [row[0] for row in rows], [row[1] for row in rows])

        return replace(self, images=tuple(map(kept, self.images)))


def teacher_queries(config: RunConfig, dataset: Dataset) -> TeacherQueries:
    """The queries of the run's method: class prompts; one a labelled image; one an unlabelled image.
    Unlabelled images that no step would look at are left out.

    Labelled images come in the order of `image_order`, unlabelled ones from each pool in turn. It stops after
    the first `use_at_most` distinct queries.

    Args:
        config: the run.
        dataset: its images.

    Raises:
        UsageError: the run may use fewer than the class prompts.
    """
    asked_for = method_of(config.method).asks
    sentences = sentences_of(config, dataset) if "texts" in asked_for else Sentences((), ())
    images = _image_positions(config, dataset) if "images" in asked_for else {}
    asked = TeacherQueries(
        sentences,
        tuple(
            ImageQueries(name, positions, [query_of(dataset.examples[position]) for position in positions])
            for name, positions in images.items()
        ),
    )
    if config.use_at_most is None:
        return asked
    if config.use_at_most < len(asked.prompts):
        raise UsageError(
            f"{config.use_at_most} queries a run do not reach the {len(asked.prompts)} class prompts of "
            f"{config.method}, without which no student can name its classes. Raise --budget."
        )
    return asked.first(config.use_at_most, dataset)


def sentences_of(config: RunConfig, dataset: Dataset) -> Sentences:
    """The sentences that a run's method asks about each class."""
    styles = styles_of(dataset.folder, dataset.domains)
    return method_of(config.method).prompts.sentences(dataset.classes, styles, dataset.wording)


def query_of(example: Example) -> Query:
    """The query of an image, whose bytes are read or made when they are sent."""
    return Query("image", example.digest, example.file, example.content)


def _image_positions(config: RunConfig, dataset: Dataset) -> dict[TrancheName, list[int]]:
    """Which images are asked about, by tranche, each in the order of purchase."""
    strata = [dataset.stratum(position) for position in dataset.train]
    turns = image_order(config.select, strata, config.seed)
    labelled = [dataset.train[turn] for turn in turns]
    pools = [dataset.stratum(position) for position in dataset.unlabelled]
    seen = len(pools) - unseen(config, dataset)
    return {
        "labelled": labelled,
        "unlabelled": [
            dataset.unlabelled[turn] for turn in image_order("stratified", pools, config.seed)[:seen]
        ],
    }
