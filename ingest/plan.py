"""What a sync will do, worked out before anything changes. Pure but for hashing files.

    known files (database)  ┐
                            ├─> Plan: parse, moved, touched, unchanged, removed, failed
    found files (disk)      ┘

A file whose size, times and inode are the remembered ones is not read. One with other times is
hashed: the same hash means untouched content. A document that an older loader read is parsed
again. A new path with the hash of a document whose own path is gone, from this root or another one
of the same sync, is a move, if the same loader reads it.
"""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

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


@dataclass(frozen=True, slots=True)
class Place:
    """One part of a source, as remembered and as found.

    `unreadable` are paths that are there but cannot be opened, folders with "/" at their end: what
    is known there is never taken for removed.
    """

    known: Sequence[KnownFile]
    found: Sequence[FoundFile]
    unreadable: Sequence[str] = ()

    def gone(self) -> list[KnownFile]:
        there = {file.path for file in self.found}.union(self.unreadable)
        closed = tuple(path for path in self.unreadable if path.endswith("/"))
        return [f for f in self.known if f.path not in there and not f.path.startswith(closed)]


def make_plans(
    places: Sequence[Place],
    *,
    prune: bool,
    retry_failed: bool,
    loader_version: Callable[[str], str],
) -> list[Plan]:
    """Compare what is known with what is there, in all places of one sync.

    Args:
        places: no two of them overlap.
        prune: whether known files that are gone are removed (or moved).
        retry_failed: whether remembered failures are parsed again.
        loader_version: gives the version of the loader that a path would be parsed by.

    Returns:
        one plan for each place; a move stands in the plan of the new place.
    """
    gone = [place.gone() if prune else [] for place in places]
    movable = _by_hash_and_loader([file for files in gone for file in files], loader_version)
    plans = [
        _make_plan(place, movable, retry_failed=retry_failed, loader_version=loader_version)
        for place in places
    ]
    moved_ids = {before.document_id for plan in plans for before, _ in plan.moved}
    return [
        replace(plan, removed=tuple(f for f in files if f.document_id not in moved_ids))
        for plan, files in zip(plans, gone, strict=True)
    ]


def _make_plan(
    place: Place,
    movable: dict[tuple[str, str], list[KnownFile]],
    *,
    retry_failed: bool,
    loader_version: Callable[[str], str],
) -> Plan:
    """Plan one place, without removals; takes what has moved out of `movable`."""
    by_path = {file.path: file for file in place.known}
    source_ids = {file.source_id for file in place.known}
    added: list[FoundFile] = []
    changed: list[FoundFile] = []
    moved: list[tuple[KnownFile, FoundFile]] = []
    touched: list[tuple[KnownFile, FoundFile]] = []
    unchanged: list[KnownFile] = []
    failed: list[FailedFile] = []

    for file in place.found:
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
            moved.append((_take(movable[content_hash, loader], file.path, source_ids), file))
        else:
            (changed if before and before.content_hash else added).append(file)

    return Plan(
        added=tuple(added),
        changed=tuple(changed),
        moved=tuple(moved),
        touched=tuple(touched),
        unchanged=tuple(unchanged),
        removed=(),
        failed=tuple(failed),
    )


def join_plans(plans: Sequence[Plan]) -> Plan:
    """Return one plan that does what all of `plans` do."""
    return Plan(
        added=tuple(file for plan in plans for file in plan.added),
        changed=tuple(file for plan in plans for file in plan.changed),
        moved=tuple(pair for plan in plans for pair in plan.moved),
        touched=tuple(pair for plan in plans for pair in plan.touched),
        unchanged=tuple(file for plan in plans for file in plan.unchanged),
        removed=tuple(file for plan in plans for file in plan.removed),
        failed=tuple(file for plan in plans for file in plan.failed),
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


def _take(candidates: list[KnownFile], path: str, source_ids: set[str]) -> KnownFile:
    """Take the document to move, out of equal ones: from the same source and of the same name."""
    name = _name(path)
    chosen = max(candidates, key=lambda f: (f.source_id in source_ids, _name(f.path) == name))
    candidates.remove(chosen)
    return chosen


def _name(path: str) -> str:
    """Return a file's name as one remembers it: case apart."""
    return path.rsplit("/", 1)[-1].casefold()
