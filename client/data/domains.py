"""Labelled images by domain and class: their names, and the files of those that are asked for."""

import hashlib
import os
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from client.data.drawings import drawing_of
from client.data.examples import Example, read_files
from client.data.file_memory import FileMemory
from client.data.finder import Skipped, counted, described
from client.data.images import accepted
from client.data.names import parts_below, size_of
from client.data.splits import Split
from client.errors import DataError


@dataclass(frozen=True)
class ImageFolder:
    """The names of a labelled set: its domains and classes, sorted, and the files of each pair.

    Listing reads names only; `read` opens the files of the domains that it is asked for and no others,
    which is how the target domain stays unread until evaluation.

    Attributes:
        root: the folder; of a table or a source, that of its files; of names of classes alone, their file.
        domains: names, composed (NFC) as those of classes are, however the disk spells them.
        classes: names.
        files: of each pair of a domain and a class, in folders below the class's as well.
        ignored: files that their names or places rule out.
        respelled: folders whose names the disk spells in another way.
        drawn: files whose names tell variants of one drawing, which `split` keeps together.
        depth: how many folders lie between the root and a class's images, the class's among them: 2 for a
            domain and a class; 1 where there is one domain, which has the root's name; 0 where a table tells.
        splits: the side of the split of those files of which a table tells it.
        table: the table, or the source with its prefix; `None` where none tells.
    """

    root: Path
    domains: tuple[str, ...]
    classes: tuple[str, ...]
    files: dict[tuple[str, str], tuple[Path, ...]]
    ignored: tuple[Skipped, ...]
    respelled: tuple[Path, ...] = ()
    drawn: tuple[Path, ...] = ()
    depth: int = 2
    splits: Mapping[Path, Split] = field(default_factory=dict)
    table: Path | None = None

    @property
    def given(self) -> Path:
        """The name that a person gave: the table, or the root."""
        return self.table or self.root

    @property
    def base(self) -> Path:
        """The folder that paths are shown relative to: the root, or that of a file of classes."""
        return self.root if self.domains else self.root.parent

    @cached_property
    def grouped(self) -> frozenset[Path]:
        """The same as `drawn`, to look files up in."""
        return frozenset(self.drawn)

    def paths_in(self, domains: Collection[str]) -> list[Path]:
        """The image files of these domains, in order."""
        return [path for (name, _), paths in sorted(self.files.items()) if name in domains for path in paths]

    def count(self, domain: str) -> int:
        """How many image files a domain has, readable or not."""
        return sum(len(paths) for (name, _), paths in self.files.items() if name == domain)

    def ignored_in(self, domains: Collection[str]) -> list[Skipped]:
        """The files in these domains that their names or places rule out."""
        return [file for file in self.ignored if file.domain in domains]

    def ignored_outside(self, target: str | None) -> list[Skipped]:
        """The same everywhere but in the domain that is held out, if one is."""
        return [file for file in self.ignored if target is None or file.domain != target]

    @property
    def deeper(self) -> int:
        """How many image files lie in a folder below their class's."""
        if not self.depth:
            return 0
        return sum(len(self._parts(path)) > self.depth + 1 for paths in self.files.values() for path in paths)

    def _parts(self, path: Path) -> tuple[str, ...]:
        return parts_below(self.root, path)

    def digest(self) -> str:
        """A SHA-256 (hex) of the names, sizes and told sides of all image files, none of which is opened."""
        digest = hashlib.sha256()
        for (domain, name), paths in sorted(self.files.items()):
            files = [(self._name_in_class(path), size_of(path), *self._told(path)) for path in paths]
            digest.update(repr((domain, name, files)).encode())
        return digest.hexdigest()

    def _told(self, path: Path) -> tuple[Split, ...]:
        """The side of the split, if a table tells it."""
        return (self.splits[path],) if path in self.splits else ()

    def _name_in_class(self, path: Path) -> bytes:
        if not self.depth:
            return os.fsencode(os.path.relpath(path, self.root))
        return os.fsencode("/".join(self._parts(path)[self.depth :]))

    def require_domains(self, names: Iterable[str]) -> None:
        """Check that there are labelled images, and that these domains exist.

        Raises:
            DataError: one does not, the message names those that do; or there are names of classes alone.
        """
        if not self.domains:
            raise DataError(
                f"{self.root} names classes, and there is no labelled image in it: --data takes a folder or "
                "a table here."
            )
        for name in names:
            if name not in self.domains:
                raise DataError(
                    f"{self.given} has no domain named {name!r}. It has: {', '.join(self.domains)}."
                )

    def require_classes(self) -> None:
        """Check that there are classes to tell apart.

        Raises:
            DataError: there is one class only, and the message has what is left out, which may show why.
        """
        if len(self.classes) > 1:
            return
        left_out = described(counted(self.ignored))
        laid_out = "ROOT/<domain>/<class>/<image>, or ROOT/<class>/<image> and nothing deeper"
        raise DataError(
            f"{self.given} has one class only ({', '.join(self.classes)}), and a student learns to tell "
            f"classes apart. {left_out and f'Left out: {left_out}. '}"
            + (
                f"A folder is laid out as {laid_out}."
                if self.table is None
                else "Its `label` tells the class."
            )
        )

    def source_domains(self, target: str | None, *, needed: bool = True) -> tuple[str, ...]:
        """The domains to train on when `target` is held out; all where nothing is.

        Args:
            target: the domain that is held out, if one is.
            needed: whether there is nothing else to learn from.

        Raises:
            DataError: the target does not exist, a domain has no image by name, nothing is left to train on,
                or a class lacks a folder.
        """
        if target is not None:
            self.require_domains([target])
        if needed and target is not None and len(self.domains) < 2:
            instead = (
                f"put the images in {self.root}/<domain>/<class>/"
                if self.table is None
                else "give its rows a `domain`"
            )
            raise DataError(
                f"{self.given} has one domain only ({target}). Holding it out leaves nothing to learn from: "
                f"leave out --target-domain, or {instead}, a domain for each style, camera or season."
            )
        if self.depth > 1:
            self._require_complete()
        if empty := [name for name in self.domains if not self.count(name)]:
            raise DataError(
                f"{self.root} has no image in the domain {empty[0]!r} (accepted: {accepted()}). "
                "Add some, or move the folder elsewhere."
            )
        return tuple(name for name in self.domains if name != target)

    def _require_complete(self) -> None:
        gaps = [
            f"{domain}/{name}"
            for domain in self.domains
            for name in self.classes
            if (domain, name) not in self.files
        ]
        if gaps:
            more = f" and {len(gaps) - 5} more" if len(gaps) > 5 else ""
            raise DataError(
                f"{self.root} lacks the class folders {', '.join(gaps[:5])}{more}. Every domain must have "
                "the same classes, spelled alike; where one has no image of a class, leave its folder empty. "
                f"If {', '.join(self.domains[:3])} are classes and not domains, say --layout class."
            )

    def read(
        self,
        domains: Iterable[str],
        on_read: Callable[[int], None] = lambda _: None,
        memory: FileMemory = FileMemory(None),  # noqa: B008 (it holds nothing)
    ) -> tuple[list[Example], list[Skipped]]:
        """Read, hash and decode every image of these domains, in a fixed order.

        Files that are not whole images are returned as skipped; they are never fatal.
        """
        labels = {name: label for label, name in enumerate(self.classes)}
        files = [
            (path, domain, labels[name])
            for (domain, name), paths in sorted(self.files.items())
            if domain in set(domains)
            for path in paths
        ]
        examples: list[Example] = []
        skipped: list[Skipped] = []
        read = read_files([path for path, _, _ in files], memory, on_read)
        for (path, domain, label), facts in zip(files, read, strict=True):
            if facts.reason:
                skipped.append(Skipped(path, facts.reason, facts.kind, domain))
            else:
                drawing = drawing_of(path.stem) if path in self.grouped else None
                examples.append(Example.of(path, facts, domain=domain, label=label, drawing=drawing or ""))
        return examples, skipped
