"""Which part of which source a path given by the user means.

docs            is a root: the whole source
docs/sub        lies in the root docs: the part below "sub/"
docs/a.md       likewise one file
.               encloses the root docs: a new root, which takes docs over

Roots never lie inside one another, so no file is two documents; the paths of one command are
looked at together to keep it so. Where two processes made such roots at once, the outer one takes
the inner one over the next time it is synced.
"""

import os
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ingest.scan import is_there
from kb.errors import InvalidInputError
from kb.records import KnowledgeBase, Source
from kb.storage.bases import find_or_add_source, list_sources
from kb.storage.database import Database
from kb.storage.documents import KnownFile, adopt_source, known_files


@dataclass(frozen=True, slots=True)
class Scope:
    """The part of a source that one sync is about: everything below `prefix`.

    `prefix` is "", one file's path, or a folder's path that ends with "/"; `location` is where
    that is on disk, None for uploads. A source that is not stored yet has the id ""; `inner` are
    stored ones that it takes over, each with its place inside.
    """

    source: Source
    prefix: str = ""
    location: Path | None = None
    inner: tuple[tuple[Source, str], ...] = ()

    def holds(self, path: str) -> bool:
        is_folder = not self.prefix or self.prefix.endswith("/")
        return path.startswith(self.prefix) if is_folder else path == self.prefix

    @property
    def name(self) -> str:
        """The place as a message names it."""
        return "/".join(part for part in (self.source.root, self.prefix.rstrip("/")) if part)


def known_documents(database: Database, scopes: Sequence[Scope]) -> list[list[KnownFile]]:
    """Return for each scope what the database remembers of it; a source is read once."""
    of_source: dict[str, list[KnownFile]] = {}
    return [
        [file for file in _known(database, scope, of_source) if scope.holds(file.path)]
        for scope in scopes
    ]


def _known(
    database: Database, scope: Scope, of_source: dict[str, list[KnownFile]]
) -> list[KnownFile]:
    """Return what is remembered of a scope's source, with the sources that it takes over."""
    key = f"{scope.source.kind} {scope.source.root}"
    if key not in of_source:
        with database.read() as session:
            known = known_files(session, scope.source.id) if scope.source.id else []
            by_path = {file.path: file for file in known}
            for source, prefix in scope.inner:  # adopting them replaces what has the same path
                for file in known_files(session, source.id):
                    by_path[prefix + file.path] = replace(file, path=prefix + file.path)
        of_source[key] = list(by_path.values())
    return of_source[key]


def outermost(paths: Sequence[Path]) -> list[Path]:
    """Leave out paths that lie inside another of `paths`, and repeated ones."""
    absolute = {path.resolve(): path for path in paths}
    return [
        path
        for place, path in absolute.items()
        if not any(above in absolute for above in place.parents)
    ]


def folder_scopes(database: Database, base: KnowledgeBase, paths: Sequence[Path]) -> list[Scope]:
    """Find the root that each path belongs to, or plan a new one. Changes nothing.

    Raises:
        InvalidInputError: there is no such file or folder, and no document is known there.
        StorageError: it cannot be known whether there is one.
    """
    with database.read() as session:
        stored = [s for s in list_sources(session, base.id) if s.kind == "folder"]
    places = {path: path.resolve() for path in outermost(paths)}
    roots = list(stored)
    missing = set()
    for path, absolute in places.items():
        _check_utf8(path, absolute)
        if not is_there(absolute):
            missing.add(path)
        if not any(absolute.is_relative_to(source.root) for source in stored):
            if path in missing:
                raise _missing(path)
            roots.append(_new_source(base, path, absolute))
    return [
        _missing_scope(database, path, _scope(absolute, roots))
        if path in missing
        else _scope(absolute, roots)
        for path, absolute in places.items()
    ]


def store_root(database: Database, base: KnowledgeBase, scope: Scope) -> Scope:
    """Store the scope's source if it is new; it takes over the sources inside it."""
    if scope.source.id and not scope.inner:
        return scope
    with database.write() as session:
        source = find_or_add_source(
            session,
            base.id,
            kind="folder",
            root=scope.source.root,
            label=scope.source.label,
        )
        for inner, prefix in scope.inner:
            adopt_source(session, inner, into=source, prefix=prefix)
    return replace(scope, source=source, inner=())


def _scope(absolute: Path, roots: Sequence[Source]) -> Scope:
    """Return the scope of a path in the outermost of `roots` that holds it."""
    source = min(
        (root for root in roots if absolute.is_relative_to(root.root)),
        key=lambda root: (len(Path(root.root).parts), not root.id),
    )
    root = Path(source.root)
    inner = tuple(
        (other, _nfc(Path(other.root).relative_to(root).as_posix()) + "/")
        for other in roots
        if other.id and other.root != source.root and Path(other.root).is_relative_to(root)
    )
    below = _nfc(absolute.relative_to(root).as_posix())
    if below == ".":
        return Scope(source, "", absolute, inner)
    return Scope(source, below + "/" if absolute.is_dir() else below, absolute, inner)


def _missing_scope(database: Database, path: Path, scope: Scope) -> Scope:
    """Return the scope of what is gone: a root, or the file or folder that documents name."""
    if not scope.prefix:
        return scope
    for was in (scope, replace(scope, prefix=scope.prefix + "/")):
        if any(known_documents(database, [was])):
            return was
    raise _missing(path)


def _new_source(base: KnowledgeBase, path: Path, absolute: Path) -> Source:
    is_folder = absolute.is_dir()
    label = os.path.normpath(path if is_folder else path.parent)
    return Source(
        id="",
        kb_id=base.id,
        kind="folder",
        root=str(absolute if is_folder else absolute.parent),
        label="" if label == "." else label,
    )


def _check_utf8(path: Path, absolute: Path) -> None:
    try:
        str(absolute).encode("utf-8")
    except UnicodeEncodeError:
        raise InvalidInputError(
            "path", f"{str(path)!r} is not valid UTF-8; rename the folder"
        ) from None


def _missing(path: Path) -> InvalidInputError:
    return InvalidInputError("path", f"there is no file or folder {str(path)!r}")


def _nfc(path: str) -> str:
    return unicodedata.normalize("NFC", path)
