"""What a sync will do, worked out before anything changes. Pure but for hashing files.

    known files (database)  ┐
                            ├─> Plan: parse, moved, touched, unchanged, removed, failed
    found files (disk)      ┘

A file whose size, times and inode are the remembered ones is not read. One with other times is
hashed: the same hash means untouched content. A document that an older loader read is parsed
again. A new path with the hash of a document whose own
path is gone is a move, if the same loader reads it.
"""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ingest.scan import FoundFile
from kb.records import FailedFile
from kb.storage.documents import KnownFile


@dataclass(frozen=True, slots=True)
class Plan:
    """The work of one sync over one source.

    `added` and `changed` files are parsed; `moved` pairs a known document with its new place;
    `touched` files have new times but known content; `failed` are remembered failures.
    """

    added: tuple[FoundFile, ...]
    changed: tuple[FoundFile, ...]
    moved: tuple[tuple[KnownFile, FoundFile], ...]
    touched: tuple[tuple[KnownFile, FoundFile], ...]
    unchanged: tuple[KnownFile, ...]
    removed: tuple[KnownFile, ...]
    failed: tuple[FailedFile, ...]

    @property
    def to_parse(self) -> tuple[FoundFile, ...]:
        return self.added + self.changed


def make_plan(
    known: Sequence[KnownFile],
    found: Sequence[FoundFile],
    *,
    unreadable: Sequence[str] = (),
    prune: bool,
    retry_failed: bool,
    loader_version: Callable[[str], str],
) -> Plan:
    """Compare what is known with what is there.

    Args:
        known: what the database remembers of the source, or the part of it that is synced.
        found: the files that are there now.
        unreadable: paths that are there but cannot be opened; never taken for removed.
        prune: whether known files that are gone are removed (or moved).
        retry_failed: whether remembered failures are parsed again.
        loader_version: gives the version of the loader that a path would be parsed by.
    """
    by_path = {file.path: file for file in known}
    found_paths = {file.path for file in found}.union(unreadable)
    gone = [file for file in known if file.path not in found_paths]
    movable = _by_hash_and_loader(gone if prune else [], loader_version)

    added: list[FoundFile] = []
    changed: list[FoundFile] = []
    moved: list[tuple[KnownFile, FoundFile]] = []
    touched: list[tuple[KnownFile, FoundFile]] = []
    unchanged: list[KnownFile] = []
    failed: list[FailedFile] = []

    for file in found:
        before = by_path.get(file.path)
        is_same_file = before and file.stat_key and file.stat_key == before.stat_key
        loader = loader_version(file.path)
        is_newly_read = before is not None and before.loader in (None, loader)
        if before and is_same_file and is_newly_read and not before.error:
            unchanged.append(before)
            continue
        content_hash = file.content_hash or (_hash(file) if before or movable else None)
        if before and is_newly_read and content_hash and content_hash == before.content_hash:
            touched.append((before, file))
        elif (
            before
            and before.error
            and not retry_failed
            and before.failed_loader == loader
            and (is_same_file or (content_hash and content_hash == before.failed_hash))
        ):
            failed.append(FailedFile(file.path, before.error))
        elif before is None and content_hash and movable.get((content_hash, loader)):
            moved.append((_take(movable[content_hash, loader], file.path), file))
        else:
            (changed if before and before.content_hash else added).append(file)

    moved_ids = {before.document_id for before, _ in moved}
    return Plan(
        added=tuple(added),
        changed=tuple(changed),
        moved=tuple(moved),
        touched=tuple(touched),
        unchanged=tuple(unchanged),
        removed=tuple(f for f in gone if prune and f.document_id not in moved_ids),
        failed=tuple(failed),
    )


def hash_file(file: FoundFile) -> str:
    """Return the SHA-256 of a file's bytes in hex."""
    with file.location.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _hash(file: FoundFile) -> str | None:
    try:
        return hash_file(file)
    except OSError:
        return None  # parsing it will tell the user why


def _by_hash_and_loader(
    files: Sequence[KnownFile], loader_version: Callable[[str], str]
) -> dict[tuple[str, str], list[KnownFile]]:
    """Group files that may have moved; under another extension another loader would read them."""
    groups: defaultdict[tuple[str, str], list[KnownFile]] = defaultdict(list)
    for file in files:
        if file.content_hash and file.loader in (None, loader_version(file.path)):
            groups[file.content_hash, loader_version(file.path)].append(file)
    return dict(groups)


def _take(candidates: list[KnownFile], path: str) -> KnownFile:
    """Take the document to move: one with the same file name if there is one."""
    name = path.rsplit("/", 1)[-1]
    same = [file for file in candidates if file.path.rsplit("/", 1)[-1] == name]
    chosen = (same or candidates)[0]
    candidates.remove(chosen)
    return chosen
