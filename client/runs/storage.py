"""The cache of a command, and what lies beside it: what is known of image files, and decoded images."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from platformdirs import user_cache_path

from client.cache.cache import EmbeddingCache
from client.data.examples import sent_of
from client.data.file_memory import FileMemory
from client.data.own_set import delete_sets
from client.data.pixels import delete_pixels
from client.errors import ClientError, UsageError
from client.options.vendor import CacheOptions
from client.paths import absence, is_there
from client.progress import Display, ProgressListener


class Storage:
    """Where a command keeps what it bought.

    Attributes:
        display: what a person sees meanwhile.
    """

    def __init__(self, options: CacheOptions, progress: ProgressListener | None) -> None:
        self._file = options.cache or user_cache_path("tuition") / "embeddings.db"
        self.display = Display.of(progress)

    @property
    def pixels(self) -> Path:
        """The folder of decoded images."""
        return self._file.parent / "pixels"

    @property
    def sets(self) -> Path:
        """The folder of data sets that are Python objects."""
        return self._file.parent / "datasets"

    @property
    def files(self) -> FileMemory:
        """The facts that are known of image files."""
        return FileMemory(self._file.parent / f"{self._file.name}.files", self.display.note_once)

    @contextmanager
    def cache(self, *, must_exist: bool = False, half: bool = False) -> Iterator[EmbeddingCache]:
        """The cache; one that is made now rounds to float16 if it is to be `half`.

        Raises:
            UsageError: it must exist, and does not.
            CacheError: it cannot be opened.
        """
        file = self._file
        if must_exist and not is_there(file):
            raise UsageError(
                f"There is no cache {file}: it {absence(file)}. Buying makes one; --cache names another."
            )
        with EmbeddingCache(file, half=half, on_damage=self.display.note, content_of=sent_of) as cache:
            yield cache

    def forget(self, images: Sequence[str]) -> int:
        """Delete images' embeddings, by the SHA-256 (hex) of their files, and what lies beside the cache.

        All decoded images are deleted, for none is named after its image. Later runs decode them again. So
        are the files that were made of Python data sets.

        Returns:
            How many embeddings there were.

        Raises:
            ClientError: there is no cache, or something cannot be deleted.
        """
        with self.cache(must_exist=True) as store:
            embeddings = store.forget(images)
        if not images:
            return embeddings
        self.files.forget(images)
        try:
            delete_pixels(self.pixels)
            delete_sets(self.sets)
        except OSError as error:
            raise ClientError(
                f"{error.filename} cannot be deleted: {error.strerror}. Change that, and give the same "
                "command again: it deletes what is left."
            ) from error
        return embeddings
