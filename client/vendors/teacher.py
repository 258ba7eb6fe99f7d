"""A teacher: anything that turns images and texts into vectors of one space, named or made in Python.

A name is `API` or `API:MODEL`. An API is

- a module of `client/vendors/teachers/`: its `TEACHER`;
- what an installed package offers as an entry point of the group `tuition.teachers`;
- `python:MODULE:NAME`, which stands for what a module of the user's has under this name.

Each is a subclass of `Vendor` that takes an address and a key, or a function that takes the name of a model
(or nothing) and returns a `Teacher`.
"""

import inspect
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Any, Self

from client.errors import ClientError, UsageError
from client.plugins import PYTHON, Plugins

if TYPE_CHECKING:  # they take a while to import
    from client.vendors.declaration import Declaration
    from client.vendors.in_process import EmbedImages, EmbedTexts
    from client.vendors.vendor import Vendor
    from shared.embeddings import Prices

OWN = "tuition"
_PLUGINS = Plugins("teacher", option="--teacher", group="tuition.teachers")
_HERE = Path(__file__).with_name("teachers")


class Teacher:
    """Somebody who is asked about images and texts: `DistillOptions(teacher=...)`, and so of other options.

    Attributes:
        name: `API` or `API:MODEL`, as `--teacher` takes it; of one made in Python, its own.
        model_name: the model that is asked; `None` for the API's default.
    """

    def __init__(self, name: str = OWN) -> None:
        """Name a teacher; nothing is asked, and no code of others is run.

        Raises:
            UsageError: there is no such API.
        """
        api, _, model = name.partition(":")
        self.name = name
        self.model_name: str | None = model or None
        self._api = api
        self._made: Vendor | None = None
        if api == PYTHON:
            words = model.split(":", 2)
            if len(words) < 2 or not all(words):
                raise UsageError(
                    f"--teacher {name}: write python:MODULE:NAME, as in python:my_module:make_teacher."
                )
            self.model_name = words[2] if len(words) > 2 else None
        elif api not in _built_in() and api not in (known := teacher_names()):
            close = get_close_matches(api, known, n=1)
            raise UsageError(
                f"There is no teacher {api!r}{f' (is {close[0]} meant?)' if close else ''}. "
                f"--teacher takes API or API:MODEL, of the APIs {', '.join(known)}."
            )

    def __repr__(self) -> str:
        return f"Teacher({self.name!r})"

    @classmethod
    def from_callable(
        cls,
        embed_images: "EmbedImages",
        embed_texts: "EmbedTexts",
        *,
        name: str | None = None,
        price: "Mapping[str, int] | Prices | None" = None,
        fingerprint: str | None = None,
    ) -> Self:
        """A teacher of two functions of the same space.

        Args:
            embed_images: takes a list of RGB images of Pillow's, and gives a row of numbers for each: an
                array or a tensor of shape (images, dimensions), or lists.
            embed_texts: the same of a list of texts.
            name: names the model in caches and reports (default: that of the first function).
            price: millionths of a currency unit for a query, as `{"image": 100, "text": 5}`; `None` where it
                costs nothing, so that what was interrupted is simply computed again.
            fingerprint: names the very model, as a version or a digest. Without it, it is recognised by its
                answers about a text and an image, which are asked for each time.

        Raises:
            UsageError: the price is none.
        """
        from client.vendors.in_process import InProcess

        title = name or f"{embed_images.__module__}.{getattr(embed_images, '__qualname__', 'teacher')}"
        identity = "" if fingerprint is None else f"{PYTHON}:{title}:{fingerprint}"
        prices = prices_of(price)
        vendor = InProcess(embed_images, embed_texts, name=title, prices=prices, fingerprint=identity)
        return cls._of(f"{PYTHON}:{title}", vendor)

    @classmethod
    def open_clip(cls, model: str, pretrained: str | None = None, *, device: str = "auto") -> Self:
        """An open_clip model in this process, on its GPU if there is one.

        Args:
            model: open_clip's name of it, or a folder with `open_clip_config.json` and weights.
            pretrained: the tag of its weights, or a file of them; `None` for a folder.
            device: cpu, cuda, cuda:1 ...; auto takes a GPU if there is one.

        Raises:
            UsageError: there is no such model, or open_clip is not installed.
        """
        from client.vendors.open_clip import load

        name = model if pretrained is None else f"{model}/{pretrained}"
        return cls._of(f"open_clip:{name}", load(name, device=device))

    @classmethod
    def _of(cls, name: str, vendor: "Vendor") -> Self:
        made = cls.__new__(cls)
        made.name, made.model_name, made._api, made._made = name, None, "", vendor
        return made

    @property
    def is_tuition(self) -> bool:
        """Whether it speaks Tuition's own API."""
        return self._api == OWN

    def declares(self) -> "Declaration | None":
        """What its API says of itself; `None` where that is known when it is made.

        Raises:
            UsageError: it cannot be loaded.
        """
        if self._made is not None:
            return self._made.declares
        found: Any = self._found()
        return found.declares if _is_api(found) else None

    def vendor(
        self,
        url: str | None,
        api_key: str | None,
        *,
        prices: "Prices | None" = None,
        on_wait: Callable[[str], None] = lambda _: None,
        trace_headers: Callable[[], Mapping[str, str]] = dict,
    ) -> "Vendor":
        """Connect to it; nothing is asked yet.

        Args:
            url: where it is; `None` for its own address.
            api_key: the key; `None` for none.
            prices: of a query of each kind, in place of the API's list.
            on_wait: told why, now and then, while requests are tried again.
            trace_headers: asked for each request what to send along.

        Raises:
            UsageError: it cannot be loaded, has no such address or key, or takes none.
        """
        found: Any = self._made if self._made is not None else self._found()
        if not _is_api(found):
            made: Vendor = found if self._made is not None else self._called(found)
            if url is not None or prices is not None:
                raise UsageError(
                    f"--teacher {self.name} runs in this process: it takes no --vendor and no --price."
                )
            return made
        if api_key is None:  # a key is sent as it is, and anything else takes libraries
            found.declares.require()
        own: dict[str, Any] = {"on_wait": on_wait, "trace_headers": trace_headers}
        if prices is not None:
            if self.is_tuition:
                raise UsageError(
                    "A Tuition vendor states its prices itself, and keeps to them: leave --price out."
                )
            own["prices"] = prices
        vendor: Vendor = found(url or found.declares.address(), api_key, **own)
        return vendor

    def _found(self) -> Any:  # noqa: ANN401 (a class or a function of anybody's)
        """What the name stands for.

        Raises:
            UsageError: it cannot be loaded.
        """
        if self._api in _built_in():
            return import_module(f"client.vendors.teachers.{self._api}").TEACHER
        is_own = self._api == PYTHON
        return _PLUGINS.load(":".join(self.name.split(":")[:3]) if is_own else self._api)

    def _called(self, make: Any) -> "Vendor":  # noqa: ANN401 (a function of anybody's)
        """The vendor of the teacher that a function makes."""
        try:
            takes_model = bool(inspect.signature(make).parameters)
            made = make(self.model_name) if takes_model else make()
        except ClientError:
            raise
        except Exception as error:
            raise UsageError(f"--teacher {self.name} raised {type(error).__name__}: {error}.") from error
        if not isinstance(made, Teacher) or made._made is None:
            raise UsageError(
                f"--teacher {self.name} made {type(made).__name__}: it has to be a subclass of client's "
                "Vendor, or a function that returns tuition.Teacher.from_callable(...)."
            )
        return made._made


def _is_api(found: Any) -> bool:  # noqa: ANN401 (a class or a function of anybody's)
    return isinstance(found, type)


def _built_in() -> set[str]:
    return {each.name for each in iter_modules([str(_HERE)])}


def teacher_names() -> tuple[str, ...]:
    """The names of all APIs, Tuition's own first; none of them is imported."""
    found = {*_built_in(), PYTHON, *_PLUGINS.names()}
    return tuple(sorted(found, key=lambda name: (name != OWN, name)))


def prices_of(given: "Mapping[str, int] | Prices | None") -> "Prices | None":
    """Prices by kind, as a user gives them.

    Raises:
        UsageError: a kind is missing, or its price is no whole number from 0.
    """
    from pydantic import ValidationError

    from shared.embeddings import Prices
    from shared.kinds import KINDS

    if given is None or isinstance(given, Prices):
        return given
    try:
        if set(given) != set(KINDS):
            raise ValueError(f"it names {', '.join(given) or 'nothing'}")
        return Prices(**{f"{kind}_micros": micros for kind, micros in given.items()})
    except (ValidationError, ValueError, TypeError) as error:
        raise UsageError(
            f"A price is whole micros by kind, as image=100,text=5, and not {dict(given)!r} ({error})."
        ) from error
