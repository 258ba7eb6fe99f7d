"""Labelled images: ROOT/<domain>/<class>/<image> as DomainBed has them, ROOT/<class>/<image>, or a table."""

import hashlib
import os
import unicodedata
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from client.data.drawings import bundled_icons, drawing_of
from client.data.examples import Example, read_files
from client.data.file_memory import FileMemory
from client.data.finder import UNNAMED, Skipped, counted, described, search
from client.data.images import (
    suffixes,
)
from client.data.splits import Split
from client.data.tables import TABLES, images_in_table, is_table
from client.errors import DataError
from client.paths import absence, is_file, is_folder, is_there

# A file with this ending names classes.
CLASSES_SUFFIX = ".txt"
_MAX_NAMES_BYTES = 2**20
CLASS_TEMPLATE = "a photo of a {}"
LOOSE_IN_ROOT = "loose in the root"
LOOSE_IN_DOMAIN = "loose in a domain"
_NOT_UTF8 = "its name is not UTF-8"


@dataclass(frozen=True)
class ImageFolder:
    """The names of a labelled set: its domains and classes, sorted, and the files of each pair.

    Listing reads names only; `read` opens the files of the domains that it is asked for and no others,
    which is how the target domain stays unread until evaluation.

    Attributes:
        root: the folder; of a table, that which it lies in; of names of classes alone, their file.
        domains: names, composed (NFC) as those of classes are, however the disk spells them.
        classes: names.
        files: of each pair of a domain and a class, in folders below the class's as well.
        ignored: files that their names or places rule out.
        respelled: folders whose names the disk spells in another way.
        drawn: files whose names tell variants of one drawing, which `split` keeps together.
        depth: how many folders below the root a domain and a class take: 2; 1 where there is one domain,
            which has the root's name; 0 where a table tells.
        splits: the side of the split of those files of which a table tells it.
        table: the table; `None` where none tells.
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
        """What a person names it by: the table, or the root."""
        return self.table or self.root

    @property
    def base(self) -> Path:
        """What paths are shown relative to: the root, or the folder that a file of classes lies in."""
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
        return _parts_below(self.root, path)

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
        """Check that there are classes to tell apart, and that their prompts differ.

        Raises:
            DataError: two classes have one prompt; or there is one class only, and the message has what is
                left out, which may show why.
        """
        named: dict[str, str] = {}
        for name, prompt in zip(self.classes, class_prompts(self.classes), strict=True):
            if (other := named.setdefault(prompt, name)) != name:
                raise DataError(
                    f"{self.given} has the classes {other!r} and {name!r}, and both are asked for as "
                    f"{prompt!r}: make them one, or give one of them another name."
                )
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

    def source_domains(self, target: str | None) -> tuple[str, ...]:
        """The domains to train on when `target` is held out; all where nothing is.

        Raises:
            DataError: the target does not exist, a domain has no image by name, nothing is left to train on,
                or a class lacks a folder.
        """
        if target is not None:
            self.require_domains([target])
        if target is not None and len(self.domains) < 2:
            instead = (
                f"put the images in {self.root}/<domain>/<class>/"
                if self.table is None
                else "give its rows a `domain`"
            )
            raise DataError(
                f"{self.given} has one domain only ({target}). Holding it out leaves nothing to learn from: "
                f"leave out --target-domain, or {instead}, a domain for each style, camera or season."
            )
        if self.depth == 2:
            self._require_complete()
        if empty := [name for name in self.domains if not self.count(name)]:
            raise DataError(
                f"{self.root} has no image in the domain {empty[0]!r} (accepted: {_accepted()}). "
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
                "the same classes, spelled alike; where one has no image of a class, leave its folder empty."
            )

    def read(
        self,
        domains: Iterable[str],
        on_read: Callable[[int], None] = lambda _: None,
        memory: FileMemory = FileMemory(None),  # noqa: B008 (it holds nothing)
    ) -> tuple[list[Example], list[Skipped]]:
        """Read, hash and decode every image of these domains, in a fixed order.

        Files that are not whole images are returned as skipped; they are never fatal.

        Args:
            domains: their names.
            on_read: is called with the number of files done.
            memory: what is known of files already.
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
                examples.append(
                    Example(
                        file=str(path),
                        domain=domain,
                        label=label,
                        digest=facts.digest,
                        drawing=drawing or facts.file_digest,
                        side=facts.side,
                        file_digest=facts.file_digest,
                    )
                )
        return examples, skipped


def list_folder(root: Path, *, group_by_name: bool = False) -> ImageFolder:
    """List the domains, classes and image files of a labelled set, without opening an image.

    A folder whose images lie in ROOT/<class>/, and none deeper, has one domain, named as the folder. A file
    is a table (`read_table`); without a domain in it, its domain is named as the table. A text file names
    classes alone, a line each: there are no labelled images.

    Files that are not images by name, hidden, outside every class, or whose name is not UTF-8, are listed as
    ignored. See `search` for how files are found, and `images_in_table` for those of a table.

    Args:
        root: the folder, the table, or the names.
        group_by_name: whether files named `<set>__<name>` may be variants of one drawing; those of the
            bundled icons are, in any case.

    Raises:
        DataError: the folder or table is missing, cannot be read, is not laid out so, or has a folder whose
            name is not UTF-8.
    """
    if is_file(root) and root.suffix.lower() == CLASSES_SUFFIX:
        return _of_class_names(root)
    if is_file(root) and is_table(root):
        return _listed_in_table(root, group_by_name=group_by_name)
    if not is_folder(root):
        what = "is neither a folder nor a table" if is_there(root) else absence(root)
        raise DataError(
            f"{root} {what}. --data takes a folder, laid out as ROOT/<domain>/<class>/<image> or "
            f"ROOT/<class>/<image>, or a table ({', '.join(TABLES)}) with the columns `path` and `label`."
        )
    found = search(root)
    depth = 1 if max((len(_parts_below(root, path)) for path in found.images), default=0) == 2 else 2
    files: dict[tuple[str, str], list[Path]] = {}
    respelled = []
    for folder in found.folders:
        parts = _parts_below(root, folder)
        if 1 <= len(parts) <= depth:
            respelled += [folder] if _name_of(folder) != folder.name else []
        if len(parts) == depth:
            files.setdefault(_domain_and_class(root, parts, depth), [])
    ignored = list(_placed(root, found.left_out, depth))
    for path in found.images:
        parts = _parts_below(root, path)
        if reason := _why_ignored(parts, depth):
            ignored.append(_in_domain(root, Skipped(path, reason), depth))
        else:
            files[_domain_and_class(root, parts, depth)].append(path)
    if not any(files.values()):
        raise DataError(_no_images(root, ignored))
    return ImageFolder(
        root=root,
        domains=tuple(sorted({domain for domain, _ in files})),
        classes=tuple(sorted({name for _, name in files})),
        files={pair: tuple(paths) for pair, paths in sorted(files.items())},
        ignored=tuple(ignored),
        respelled=tuple(respelled),
        drawn=found.images if group_by_name else _icons(root, found.images),
        depth=depth,
    )


def _listed_in_table(table: Path, *, group_by_name: bool) -> ImageFolder:
    """The labelled set that a table tells; files that are not there, or no images by name, are ignored.

    Raises:
        DataError: the table is not one, or none of its files is there.
    """
    files: dict[tuple[str, str], list[Path]] = {}
    splits: dict[Path, Split] = {}
    rows, left_out = images_in_table(table, labelled=True)
    for row in rows:
        files.setdefault((composed(row.domain or table.stem), composed(row.label)), []).append(row.path)
        if row.split:
            splits[row.path] = row.split
    images = [path for paths in files.values() for path in paths]
    return ImageFolder(
        root=table.parent,
        domains=tuple(sorted({domain for domain, _ in files})),
        classes=tuple(sorted({name for _, name in files})),
        files={pair: tuple(paths) for pair, paths in sorted(files.items())},
        ignored=tuple(replace(each, domain=composed(each.domain or table.stem)) for each in left_out),
        drawn=tuple(images) if group_by_name else (),
        depth=0,
        splits=splits,
        table=table,
    )


def _of_class_names(file: Path) -> ImageFolder:
    """Classes without an image, by a file with a name a line.

    Raises:
        DataError: it cannot be read as UTF-8, or names no class, or one twice.
    """
    try:
        if file.stat().st_size > _MAX_NAMES_BYTES:
            raise DataError(
                f"{file} is larger than {_MAX_NAMES_BYTES // 2**20} MiB: it is no list of classes."
            )
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file} cannot be read as a list of classes: {error}.") from error
    names = [composed(line.strip()) for line in lines if line.strip()]
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice or len(names) < 2:
        wrong = f"names {twice[0]!r} twice" if twice else "names fewer than two classes"
        raise DataError(f"{file} {wrong}. It takes one class a line.")
    return ImageFolder(file, (), tuple(sorted(names)), {}, (), depth=0)


def _domain_and_class(root: Path, parts: Sequence[str], depth: int) -> tuple[str, str]:
    """By the names that lead from the root to a class's folder, or to what is in it."""
    if depth == 1:
        return composed(shown(root.resolve().name)) or "images", composed(parts[0])
    return composed(parts[0]), composed(parts[1])


def composed(name: str) -> str:
    """A name as one spelling of Unicode has it (NFC): a Mac writes "é" as two characters, others as one."""
    return unicodedata.normalize("NFC", name)


def _name_of(folder: Path) -> str:
    if not _is_unicode(folder.name):
        raise DataError(f"The name of {shown(folder)} is not UTF-8. Rename the folder.")
    return composed(folder.name)


def _parts_below(root: Path, path: Path) -> tuple[str, ...]:
    """The names that lead from the root to what was found below it; `Path.relative_to` takes far longer."""
    return path.parts[len(root.parts) :]


def _icons(root: Path, images: Sequence[Path]) -> tuple[Path, ...]:
    """Those of the images that are bundled icons."""
    names = bundled_icons(root)
    return tuple(path for path in images if "/".join(_parts_below(root, path)) in names) if names else ()


def _why_ignored(parts: Sequence[str], depth: int) -> str | None:
    """Why a file below the root is no image of a class, by the parts of its path."""
    if not _is_unicode("/".join(parts)):
        return _NOT_UTF8
    return {1: LOOSE_IN_ROOT, 2: LOOSE_IN_DOMAIN}.get(len(parts)) if len(parts) <= depth else None


def _placed(root: Path, left_out: Iterable[Skipped], depth: int) -> Iterator[Skipped]:
    """With their domains; what is not named as an image and lies in no class, as a read-me does, goes."""
    for file in left_out:
        if file.reason != UNNAMED or len(_parts_below(root, file.path)) > depth:
            yield _in_domain(root, file, depth)


def _in_domain(root: Path, file: Skipped, depth: int) -> Skipped:
    parts = _parts_below(root, file.path)
    if depth == 1:
        return replace(file, domain=_domain_and_class(root, parts, depth)[0])
    return replace(file, domain=composed(parts[0])) if len(parts) > 1 else file


def _no_images(root: Path, ignored: Sequence[Skipped]) -> str:
    """What to say of a folder without an image in a class."""
    left_out = described(counted(ignored))
    return (
        f"{root} holds no images in ROOT/<domain>/<class>/ or ROOT/<class>/ (accepted: {_accepted()}). "
        f"{left_out and f'Left out: {left_out}. '}Is it the right folder, or one level too high or too low?"
    )


def _accepted() -> str:
    return ", ".join(sorted(suffixes()))


def _is_unicode(name: str) -> bool:
    """Whether a name is UTF-8 on disk; Python gives other bytes as what no text holds."""
    return name.isascii() or shown(name) == name


def size_of(file: Path) -> int | None:
    """The size of a file in bytes; `None` for a link to nowhere."""
    try:
        return file.stat().st_size
    except OSError:
        return None


def class_prompts(classes: Iterable[str]) -> list[str]:
    """ "a photo of a {class}" with underscores as spaces: the paper's only prompt (section 4)."""
    return [CLASS_TEMPLATE.format(readable(name)) for name in classes]


def readable(name: str) -> str:
    """The name of a class or a domain as a sentence has it: with underscores as spaces."""
    return name.replace("_", " ")


def relative(path: Path, root: Path) -> str:
    """The path as it is shown: relative to the data folder, with `/`."""
    return shown(Path(os.path.relpath(path, root)).as_posix())


def shown(name: str | Path) -> str:
    """A name as text that can be written; of one that is not UTF-8, its bytes as Python escapes them."""
    return str(name).encode("utf-8", "backslashreplace").decode()
