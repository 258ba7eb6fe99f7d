"""Lists labelled images: ROOT/<domain>/<class>/<image>, ROOT/<class>/<image>, tables and sources."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from client.data.domains import ImageFolder
from client.data.drawings import bundled_icons
from client.data.finder import ELSEWHERE, UNNAMED, Skipped, counted, described, search
from client.data.images import accepted
from client.data.layout import CLASSES, DOMAINS, Layout, layout_of
from client.data.manifests import require_not_as_published
from client.data.names import composed, is_unicode, parts_below, shown
from client.data.sources import source_names
from client.data.sources.source import Kept
from client.data.splits import Split
from client.data.tables import TABLES, Columns, TableRow, images_in_table, is_table
from client.errors import DataError, UsageError
from client.paths import absence, is_file, is_folder, is_there

# A file with this ending names classes.
CLASSES_SUFFIX = ".txt"
_MAX_NAMES_BYTES = 2**20
LOOSE_IN_ROOT = "loose in the root"
LOOSE_IN_DOMAIN = "loose in a domain"
_NOT_UTF8 = "its name is not UTF-8"

# Files by their domain and class.
Files = Mapping[tuple[str, str], Sequence[Path]]


def list_folder(
    root: Path, *, group_by_name: bool = False, layout: str | None = None, columns: Sequence[str] = ()
) -> ImageFolder:
    """List the domains, classes and image files of a labelled set, without opening an image.

    Without a domain in its layout, as where images lie in ROOT/<class>/ and none deeper, a folder has one,
    named as the folder. A file is a table (`read_table`); without a domain in it, its domain is named as the
    table. A text file names classes alone, a line each: there are no labelled images. A prefix names a source
    (`Kept.images`).

    Files that are not images by name, hidden, outside every class, or whose name is not UTF-8, are listed as
    ignored. See `search` for how files are found, and `images_in_table` for those of a table.

    Args:
        root: the folder, the table, the names, or what is named by a prefix.
        group_by_name: whether files named `<set>__<name>` may be variants of one drawing; those of the
            bundled icons are, in any case.
        layout: which of its folders are domains and classes (`Layout.of`); `None` to see it from the paths.
        columns: of a table or a source, other names of columns (`Columns.of`).

    Raises:
        DataError: the folder or table is missing, cannot be read, can be read in two ways, or has a folder
            whose name is not UTF-8.
        UsageError: the layout or the columns are none, or a layout is given of what is no folder.
    """
    kept = Kept.of(root)
    if layout is not None and (kept is not None or is_file(root)):
        what = "is a file" if kept is None else "says it itself"
        raise UsageError(f"--layout says what the folders of a folder are, and {root} {what}: leave it out.")
    if kept is not None:
        rows, left_out = kept.images(Columns.of(columns), labelled=True)
        listed = _of_rows(rows, left_out, kept.folder, kept.name, group_by_name=group_by_name)
        return replace(listed, table=root)
    if is_file(root) and root.suffix.lower() == CLASSES_SUFFIX:
        return _of_class_names(root)
    if is_file(root) and is_table(root):
        return _of_table(root, Columns.of(columns), group_by_name=group_by_name)
    if is_folder(root):
        given = None if layout is None else Layout.of(layout)
        return _of_folder(root, given, group_by_name=group_by_name)
    what = "is neither a folder nor a table" if is_there(root) else absence(root)
    raise DataError(
        f"{root} {what}. --data takes a folder, laid out as ROOT/<domain>/<class>/<image> or "
        f"ROOT/<class>/<image>, a table ({', '.join(TABLES)}) with the columns `path` and `label`, or "
        f"{', '.join(f'{name}:' for name in source_names())} and a place."
    )


def _of_folder(root: Path, given: Layout | None, *, group_by_name: bool) -> ImageFolder:
    found = search(root)
    layout = given or _seen_layout(root, [parts_below(root, path) for path in found.images])
    depth = layout.depth
    files: dict[tuple[str, str], list[Path]] = {}
    respelled = []
    for folder in found.folders:
        parts = parts_below(root, folder)
        if 1 <= len(parts) <= depth and _name_of(folder) != folder.name:
            respelled.append(folder)
        if len(parts) == depth and layout.takes(parts):
            files.setdefault(_domain_and_class(root, parts, layout), [])
    ignored = list(_placed(root, found.left_out, layout))
    for path in found.images:
        parts = parts_below(root, path)
        if reason := _why_ignored(parts, layout):
            ignored.append(_in_domain(root, Skipped(path, reason), layout))
        else:
            files[_domain_and_class(root, parts, layout)].append(path)
    if not any(files.values()):
        raise DataError(_no_images(root, ignored, layout))
    drawn = found.images if group_by_name else _icons(root, found.images)
    listed = _listed(root, files, ignored, depth)
    return replace(listed, respelled=tuple(respelled), drawn=drawn)


def _seen_layout(root: Path, images: Sequence[tuple[str, ...]]) -> Layout:
    """The layout by the images' paths; a known data set that lies as it is published is refused."""
    require_not_as_published(root, images)
    return layout_of(root, images)


def _of_table(table: Path, columns: Columns, *, group_by_name: bool) -> ImageFolder:
    """Files that are not there, or no images by name, are ignored."""
    rows, left_out = images_in_table(table, labelled=True, columns=columns)
    listed = _of_rows(rows, left_out, table.parent, table.stem, group_by_name=group_by_name)
    return replace(listed, table=table)


def _of_rows(
    rows: Iterable[TableRow], left_out: Iterable[Skipped], root: Path, only: str, *, group_by_name: bool
) -> ImageFolder:
    """Images that are told one by one; `only` is the domain of those of which none is told."""
    files: dict[tuple[str, str], list[Path]] = {}
    splits: dict[Path, Split] = {}
    for row in rows:
        files.setdefault((composed(row.domain or only), composed(row.label)), []).append(row.path)
        if row.split:
            splits[row.path] = row.split
    ignored = [replace(each, domain=composed(each.domain or only)) for each in left_out]
    drawn = tuple(path for paths in files.values() for path in paths) if group_by_name else ()
    return replace(_listed(root, files, ignored, depth=0), drawn=drawn, splits=splits)


def _of_class_names(file: Path) -> ImageFolder:
    """Classes without an image, by a file in UTF-8 with a name a line."""
    try:
        if file.stat().st_size > _MAX_NAMES_BYTES:
            raise DataError(
                f"{file} is larger than {_MAX_NAMES_BYTES // 2**20} MiB: it is not a list of classes."
            )
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file} cannot be read as a list of classes: {error}.") from error
    names = [composed(line.strip()) for line in lines if line.strip()]
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice or len(names) < 2:
        wrong = f"names {twice[0]!r} twice" if twice else "names fewer than two classes"
        raise DataError(f"{file} {wrong}. It takes one class per line.")
    return ImageFolder(file, (), tuple(sorted(names)), {}, (), depth=0)


def _listed(root: Path, files: Files, ignored: Iterable[Skipped], depth: int) -> ImageFolder:
    return ImageFolder(
        root=root,
        domains=tuple(sorted({domain for domain, _ in files})),
        classes=tuple(sorted({name for _, name in files})),
        files={pair: tuple(paths) for pair, paths in sorted(files.items())},
        ignored=tuple(ignored),
        depth=depth,
    )


def _domain_and_class(root: Path, parts: Sequence[str], layout: Layout) -> tuple[str, str]:
    """By the names that lead from the root to a class's folder, or to what is in it."""
    return layout.domain_of(parts) or _only_domain(root), layout.class_of(parts)


def _only_domain(root: Path) -> str:
    return composed(shown(root.resolve().name)) or "images"


def _name_of(folder: Path) -> str:
    if not is_unicode(folder.name):
        raise DataError(f"The name of {shown(folder)} is not UTF-8. Rename the folder.")
    return composed(folder.name)


def _icons(root: Path, images: Sequence[Path]) -> tuple[Path, ...]:
    """Those of the images that are bundled icons."""
    names = bundled_icons(root)
    return tuple(path for path in images if "/".join(parts_below(root, path)) in names) if names else ()


def _why_ignored(parts: Sequence[str], layout: Layout) -> str | None:
    """Why a file below the root is no image of a class, by the parts of its path."""
    if not is_unicode("/".join(parts)):
        return _NOT_UTF8
    if len(parts) == 1:
        return LOOSE_IN_ROOT
    if not layout.takes(parts[:-1]):
        return ELSEWHERE
    return LOOSE_IN_DOMAIN if len(parts) <= layout.depth else None


def _placed(root: Path, left_out: Iterable[Skipped], layout: Layout) -> Iterator[Skipped]:
    """With their domains; what is not named as an image and lies in no class, as a read-me does, goes."""
    for file in left_out:
        if file.reason != UNNAMED or len(parts_below(root, file.path)) > layout.depth:
            yield _in_domain(root, file, layout)


def _in_domain(root: Path, file: Skipped, layout: Layout) -> Skipped:
    if not layout.has_domains:
        return replace(file, domain=_only_domain(root))
    return replace(file, domain=layout.domain_of(parts_below(root, file.path)[:-1]))


def _no_images(root: Path, ignored: Sequence[Skipped], layout: Layout) -> str:
    """The error of a folder without an image in a class."""
    left_out = described(counted(ignored))
    named = "/".join(f"<{part}>" if part in ("domain", "class") else part for part in layout.parts)
    usual = layout in (CLASSES, DOMAINS)
    looked_in = "ROOT/<domain>/<class>/ or ROOT/<class>/" if usual else f"ROOT/{named}/"
    return (
        f"{root} holds no images in {looked_in} (accepted: {accepted()}). "
        f"{left_out and f'Left out: {left_out}. '}Is it the right folder, or one level too high or too low?"
    )
