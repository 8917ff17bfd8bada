"""Which part of which source a path given by the user means.

docs            is a root: the whole source
docs/sub        lies in the root docs: the part below "sub/"
docs/a.md       likewise one file
.               encloses the root docs: a new root, which takes docs over
"""

import os
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

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
    the stored ones that it will take over, each with its place inside.
    """

    source: Source
    prefix: str = ""
    location: Path | None = None
    inner: tuple[tuple[Source, str], ...] = ()

    def holds(self, path: str) -> bool:
        is_folder = not self.prefix or self.prefix.endswith("/")
        return path.startswith(self.prefix) if is_folder else path == self.prefix

    def known(self, database: Database) -> list[KnownFile]:
        """Return what the database remembers of this part."""
        places = [(self.source, "")] if self.source.id else list(self.inner)
        with database.read() as session:
            known = [
                replace(file, path=prefix + file.path)
                for source, prefix in places
                for file in known_files(session, source.id)
            ]
        return [file for file in known if self.holds(file.path)]


def outermost(paths: Sequence[Path]) -> list[Path]:
    """Leave out paths that lie inside another of `paths`, and repeated ones."""
    absolute = {path.resolve(): path for path in paths}
    return [
        path
        for place, path in absolute.items()
        if not any(other != place and place.is_relative_to(other) for other in absolute)
    ]


def folder_scope(database: Database, base: KnowledgeBase, path: Path) -> Scope:
    """Find the enclosing root of `path`, or plan a new one. Changes nothing.

    Raises:
        InvalidInputError: there is no such file or folder, and no document is known there.
    """
    absolute = path.resolve()
    if _nfc(str(absolute)).encode("utf-8", "replace") != _nfc(str(absolute)).encode(
        "utf-8", "surrogateescape"
    ):
        raise InvalidInputError("path", f"{str(path)!r} is not valid UTF-8; rename the folder")
    with database.read() as session:
        sources = [s for s in list_sources(session, base.id) if s.kind == "folder"]
    enclosing = [s for s in sources if absolute.is_relative_to(s.root)]
    if not enclosing:
        return _new_root(base, path, absolute, sources)
    source = max(enclosing, key=lambda s: len(Path(s.root).parts))
    below = _nfc(absolute.relative_to(source.root).as_posix())
    whole = Scope(source, "", absolute)
    if below == ".":
        return whole
    file, folder = replace(whole, prefix=below), replace(whole, prefix=below + "/")
    if absolute.exists():
        return folder if absolute.is_dir() else file
    for scope in (file, folder):
        if scope.known(database):
            return scope
    raise InvalidInputError("path", f"there is no file or folder {str(path)!r}")


def store_root(database: Database, base: KnowledgeBase, scope: Scope) -> Scope:
    """Store the scope's source if it is new; it takes over the sources inside it."""
    if scope.source.id:
        return scope
    with database.write() as session:
        source = find_or_add_source(
            session, base.id, kind="folder", root=scope.source.root, label=scope.source.label
        )
        for inner, prefix in scope.inner:
            adopt_source(session, inner, into=source, prefix=prefix)
    return replace(scope, source=source, inner=())


def _new_root(base: KnowledgeBase, path: Path, absolute: Path, sources: Sequence[Source]) -> Scope:
    if not absolute.exists():
        raise InvalidInputError("path", f"there is no file or folder {str(path)!r}")
    is_folder = absolute.is_dir()
    root = absolute if is_folder else absolute.parent
    label = os.path.normpath(path if is_folder else path.parent)
    inner = tuple(
        (source, _nfc(Path(source.root).relative_to(root).as_posix()) + "/")
        for source in sources
        if Path(source.root).is_relative_to(root)
    )
    return Scope(
        Source(
            id="",
            kb_id=base.id,
            kind="folder",
            root=str(root),
            label="" if label == "." else label,
        ),
        prefix="" if is_folder else _nfc(absolute.name),
        location=absolute,
        inner=inner,
    )


def _nfc(path: str) -> str:
    return unicodedata.normalize("NFC", path)
