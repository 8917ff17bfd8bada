"""Sync: make a knowledge base equal to folders, or to the files of an upload.

    plan ──> moves and touched files ──> parse, split, embed, write ──> removals ──> sweep

All roots of one command are planned together, so that a file may move from one to another.

Every step commits as it goes: a document is one transaction, vectors are stored batch by batch.
So a run that is killed loses at most what it had not yet written, and running it again goes on
where it stopped. Removals come last, when the new content is in. Parsing and embedding hold no
session. Work is batched across files, because embedding file by file starves the model.
"""

import logging
import time
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, TypeVar

from ingest.loaders import loader_version
from ingest.parser import Parser
from ingest.plan import Place, Plan, hash_file, join_plans, make_plans
from ingest.prepare import prepare
from ingest.read_ahead import read_ahead
from ingest.scan import FoundFile, Scan, scan, stat_key
from ingest.scope import Scope, folder_scopes, known_documents, store_root
from ingest.splitter import SPLITTER
from kb.embedder import Embedder
from kb.errors import (
    CancelledError,
    ConfirmationNeededError,
    EmbedderMovedError,
    KnowledgeBaseDeletedError,
    KnowledgeBaseNotFoundError,
    LoadError,
)
from kb.failpoints import failpoint
from kb.records import FailedFile, FileNote, IngestReport, KnowledgeBase, LoadedDocument, Source
from kb.storage.bases import (
    check_fulltext_version,
    check_versions,
    find_base,
    find_or_add_embedder,
    find_or_add_source,
)
from kb.storage.database import Database
from kb.storage.documents import (
    MissingVectorsError,
    PreparedDocument,
    display_name,
    drop_empty_source,
    move_document,
    record_failure,
    record_unchanged,
    remove_documents,
    write_document,
)
from kb.storage.embeddings import find_embeddings, store_embeddings, sweep_embeddings
from kb.storage.jobs import is_any_job_live
from kb.storage.traces import drop_uncited_versions
from kb.text.terms import FULLTEXT

logger = logging.getLogger(__name__)

# New strings gathered across files before they are embedded: enough to sort by length into
# full batches, few enough that a kill costs seconds.
GATHERED_STRINGS = 512
# Documents gathered likewise: most of a re-sync needs no embedding at all.
GATHERED_DOCUMENTS = 200
# Vectors stored per transaction.
STORED_VECTORS = 128
# Rows changed per transaction where nothing but rows changes.
ROWS_PER_WRITE = 500
# Before this much time and this share of the bytes an estimate is noise.
ESTIMATE_AFTER_S = 3.0
ESTIMATE_AFTER_SHARE = 0.03

_T = TypeVar("_T")

FileState = Literal["done", "failed", "empty", "unchanged"]


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a sync is. `path` is the file that was just finished, None between files.

    `seconds_left` is None until there is something to go by.
    """

    bytes_done: int
    bytes_total: int
    files_done: int
    files_total: int
    chunks: int
    seconds_left: float | None = None
    path: str | None = None
    state: FileState = "done"
    error: str | None = None


@dataclass(frozen=True, slots=True)
class SyncOptions:
    """How a sync treats what is missing, what failed before, and who watches."""

    prune: bool = True
    dry_run: bool = False
    retry_failed: bool = False
    yes: bool = False
    # Nobody is there to ask: a root that is missing or empty keeps its documents even with `yes`.
    unattended: bool = False
    job_id: str = ""
    progress: Callable[[Progress], None] = lambda _progress: None
    is_cancelled: Callable[[], bool] = lambda: False


@dataclass(frozen=True, slots=True)
class SyncParts:
    """What a sync works with; `Services` owns them."""

    database: Database
    embedder: Embedder
    parser: Parser


@dataclass(slots=True)
class _Tally:
    """What has happened so far; becomes the report."""

    started: float
    bytes_total: int = 0
    bytes_done: int = 0
    files_total: int = 0
    files_done: int = 0
    unchanged: int = 0
    embedded: int = 0
    reused: int = 0
    chunks_removed: int = 0
    chunks: int = 0
    empty: list[str] = field(default_factory=list)
    failed: list[FailedFile] = field(default_factory=list)
    notes: list[FileNote] = field(default_factory=list)
    changes: dict[str, list[str]] = field(
        default_factory=lambda: {"added": [], "changed": [], "moved": [], "removed": []}
    )


def sync_folders(
    parts: SyncParts, base: KnowledgeBase, paths: Sequence[Path], options: SyncOptions
) -> IngestReport:
    """Make the documents below `paths` equal to the folders or files there.

    All paths are planned and checked before the first is written.

    Raises:
        InvalidInputError: a path does not exist and no document is known there.
        ConfirmationNeededError: a root is missing or empty, or more than half of a source
            would be removed, and `options.yes` is not set. Nothing was changed.
        CancelledError: `options.is_cancelled` said so; what was stored stays.
        KnowledgeBaseDeletedError: somebody deleted the base meanwhile.
        VersionMismatchError, StorageError, EmbedderError
    """
    check_writable(parts, base)
    started = time.monotonic()
    scopes = folder_scopes(parts.database, base, paths)
    found = []
    for scope in scopes:
        assert scope.location is not None, scope
        found.append(scan(Path(scope.source.root), scope.location))
    return _run(parts, base, _plan(parts, scopes, found, options), options, started)


def sync_uploads(
    parts: SyncParts,
    base: KnowledgeBase,
    files: Sequence[FoundFile],
    root: str,
    options: SyncOptions,
) -> IngestReport:
    """Store uploaded files; with a `root` and `options.prune`, make that folder equal to them.

    Args:
        files: uploaded files; `path` is the display path (below `root` if one is given),
            `location` the blob, `content_hash` its hash.
        root: the folder that was dropped, "" for single files, which never prune.

    Raises:
        As `sync_folders`.
    """
    check_writable(parts, base)
    started = time.monotonic()
    with parts.database.write() as session:
        source = find_or_add_source(session, base.id, kind="upload", root="", label="")
    if not root:
        options = replace(options, prune=False)
    prefix = unicodedata.normalize("NFC", root).rstrip("/") + "/" if root else ""
    work = _plan(parts, [Scope(source, prefix)], [Scan(tuple(files), ())], options)
    return _run(parts, base, work, options, started)


def check_writable(parts: SyncParts, base: KnowledgeBase) -> None:
    """Refuse a base that a sync could not write into.

    Raises:
        VersionMismatchError: its embedder is not here, or another version split or indexed it.
    """
    _target(parts, base)


@dataclass(frozen=True, slots=True)
class _Target:
    """A base, and the embedder that it has."""

    base: KnowledgeBase
    embedder: Embedder


def _target(parts: SyncParts, base: KnowledgeBase) -> _Target:
    """Return the base with the embedder, in the form, that it was made with.

    Raises:
        VersionMismatchError
    """
    embedder = parts.embedder.matching(base.embedder)
    check_versions(base, embedder=embedder.spec if embedder else None, splitter=SPLITTER)
    check_fulltext_version(base, FULLTEXT)
    assert embedder is not None  # `check_versions` has said so
    return _Target(base, embedder)


# Plan


@dataclass(frozen=True, slots=True)
class _Work:
    """One source with the scopes of it that are synced, its plan, and what cannot be opened."""

    source: Source
    scopes: tuple[Scope, ...]
    plan: Plan
    unreadable: tuple[FailedFile, ...]


def _plan(
    parts: SyncParts, scopes: Sequence[Scope], found: Sequence[Scan], options: SyncOptions
) -> list[_Work]:
    """Plan all scopes, and stop if the plan looks like a mistake."""
    known = known_documents(parts.database, scopes)
    places = [
        Place(before, there.files, [file.path for file in there.failed])
        for before, there in zip(known, found, strict=True)
    ]
    plans = make_plans(
        places,
        prune=options.prune,
        retry_failed=options.retry_failed,
        loader_version=loader_version,
    )
    if not options.dry_run:
        for scope, plan, place in zip(scopes, plans, places, strict=True):
            _check_removals(scope, plan, place, options)
    by_root: dict[str, list[_Work]] = {}
    for scope, plan, there in zip(scopes, plans, found, strict=True):
        work = _Work(scope.source, (scope,), plan, there.failed)
        by_root.setdefault(scope.source.root, []).append(work)
    return [_joined(works) for works in by_root.values()]


def _joined(works: Sequence[_Work]) -> _Work:
    """Make one work of those in one source, so that many single files are embedded together."""
    return _Work(
        works[0].source,
        tuple(scope for work in works for scope in work.scopes),
        join_plans([work.plan for work in works]),
        tuple(file for work in works for file in work.unreadable),
    )


def _check_removals(scope: Scope, plan: Plan, place: Place, options: SyncOptions) -> None:
    """Stop before a sync that looks like a mistake: an unmounted disk, an emptied folder."""
    n_ready = sum(1 for file in place.known if file.content_hash)
    n_removed = sum(1 for file in plan.removed if file.content_hash)
    if not n_removed or (options.yes and (place.found or not options.unattended)):
        return
    keep = "say yes (--yes) to remove them, or keep them (--no-prune)"
    if options.unattended:
        keep = "kept for now; run `kb ingest PATH --yes` without --watch to remove them"
    if scope.location is not None and not scope.location.exists():
        raise ConfirmationNeededError(
            f"{scope.name!r} is missing or empty, and {n_removed} of its documents are in the "
            f"knowledge base; mount its disk if that is away, name its new place too if it was "
            f"moved (`kb ingest OLD NEW`), else {keep}"
        )
    if not place.found:
        raise ConfirmationNeededError(
            f"{scope.name!r} is missing or empty, or all of it is left out by a .kbignore, and "
            f"{n_removed} of its documents are in the knowledge base; {keep}"
        )
    if n_removed * 2 > n_ready:
        raise ConfirmationNeededError(
            f"{n_removed} of {n_ready} documents of {scope.name!r} are gone from the folder or "
            f"left out by a .kbignore; {keep}"
        )


# Run


def _run(
    parts: SyncParts,
    base: KnowledgeBase,
    work: Sequence[_Work],
    options: SyncOptions,
    started: float,
) -> IngestReport:
    tally = _Tally(started)
    sources = {part.source.id: part.source for part in work}
    for part in work:
        _tally_plan(tally, part, sources)
    if options.dry_run:
        for part in work:
            tally.changes["added"] += [file.path for file in part.plan.added]
            tally.changes["changed"] += [file.path for file in part.plan.changed]
            tally.changes["removed"] += [file.path for file in part.plan.removed]
        return _report(base, tally, started)
    _store_scripts(parts, base)
    try:
        for part in work:
            _write_source(parts, base, part, options, tally)
        for part in work:
            _write_removals(parts.database, base, part, tally)
    except KnowledgeBaseNotFoundError as exc:  # storage knows its id only
        raise KnowledgeBaseDeletedError(base.name) from exc
    failpoint("sync.sweeping")
    with parts.database.write() as session:
        for part in work:
            if part.source.root and not Path(part.source.root).exists():
                drop_empty_source(session, part.source)
        drop_uncited_versions(session)
        if not is_any_job_live(session, except_job=options.job_id):
            sweep_embeddings(session, embedder_id=base.embedder_id)
    return _report(base, tally, started)


def _store_scripts(parts: SyncParts, base: KnowledgeBase) -> None:
    """Store what the embedder knows, where that was lost or is told otherwise by now."""
    spec = _target(parts, base).embedder.spec
    if spec.scripts != base.embedder.scripts:
        with parts.database.write() as session:
            find_or_add_embedder(session, spec)


def _write_source(
    parts: SyncParts, base: KnowledgeBase, work: _Work, options: SyncOptions, tally: _Tally
) -> None:
    source = store_root(parts.database, base, work.scopes[0]).source
    _write_moves(parts.database, source, work.plan)
    _write_unreadable(parts.database, source, work.unreadable)
    _advance_settled(options, tally, work)
    _Writer(parts, base, source, work.plan, options, tally).run()


def _tally_plan(tally: _Tally, work: _Work, sources: Mapping[str, Source]) -> None:
    plan = work.plan
    settled = (*plan.unchanged, *(before for before, _ in plan.touched))
    tally.bytes_total += sum(file.size_bytes for file in plan.to_parse)
    tally.files_total += len(plan.to_parse) + len(plan.moved) + len(settled)
    tally.files_total += len(plan.failed) + len(work.unreadable)
    tally.unchanged += len(settled)
    tally.failed += [*plan.failed, *work.unreadable]
    tally.empty += [file.path for file in settled if file.status == "empty"]
    for before, file in plan.moved:
        old, new = before.path, file.path
        if before.source_id != work.source.id and before.source_id in sources:
            old = display_name(sources[before.source_id], old)
            new = display_name(work.source, new)
        tally.changes["moved"].append(f"{old} → {new}")


def _advance_settled(options: SyncOptions, tally: _Tally, work: _Work) -> None:
    """Report the files that need no parsing."""
    plan = work.plan
    for before in (*plan.unchanged, *(before for before, _ in plan.touched)):
        _advance(options, tally, before.path, "unchanged")
    for _, file in plan.moved:
        _advance(options, tally, file.path, "done")
    for failed in (*plan.failed, *work.unreadable):
        _advance(options, tally, failed.path, "failed", error=failed.error)


def _advance(
    options: SyncOptions,
    tally: _Tally,
    path: str,
    state: FileState,
    *,
    size_bytes: int = 0,
    error: str | None = None,
) -> None:
    tally.files_done += 1
    tally.bytes_done += size_bytes
    options.progress(
        Progress(
            bytes_done=tally.bytes_done,
            bytes_total=tally.bytes_total,
            files_done=tally.files_done,
            files_total=tally.files_total,
            chunks=tally.chunks,
            seconds_left=seconds_left(
                tally.bytes_done, tally.bytes_total, time.monotonic() - tally.started
            ),
            path=path,
            state=state,
            error=error,
        )
    )


def seconds_left(bytes_done: int, bytes_total: int, elapsed_s: float) -> float | None:
    """Estimate by the bytes of files that are wholly done; None while that would be a guess.

    Files differ in how much text their bytes hold, so it errs by as much as the first files
    differ from the rest; it never counts work that is not stored yet.
    """
    if elapsed_s < ESTIMATE_AFTER_S or bytes_done < bytes_total * ESTIMATE_AFTER_SHARE:
        return None
    return elapsed_s * (bytes_total - bytes_done) / bytes_done if bytes_done else 0.0


def _write_moves(database: Database, source: Source, plan: Plan) -> None:
    for moves in _parts_of(plan.moved, ROWS_PER_WRITE):
        with database.write() as session:
            for before, file in moves:
                move_document(
                    session,
                    before.document_id,
                    source=source,
                    path=file.path,
                    stat_key=file.stat_key,
                )
    failpoint("sync.moved")
    touched = [
        (before, file)
        for before, file in plan.touched
        if before.error or before.stat_key != file.stat_key
    ]
    for pairs in _parts_of(touched, ROWS_PER_WRITE):
        with database.write() as session:
            for before, file in pairs:
                record_unchanged(session, before.document_id, file.stat_key)


def _write_unreadable(database: Database, source: Source, unreadable: Sequence[FailedFile]) -> None:
    named = [file for file in unreadable if not file.path.endswith("/")]  # folders are no documents
    for files in _parts_of(named, ROWS_PER_WRITE):
        with database.write() as session:
            for file in files:
                record_failure(
                    session,
                    source,
                    file.path,
                    error=file.error,
                    content_hash=None,
                    loader="",
                    stat_key="",
                )


def _write_removals(database: Database, base: KnowledgeBase, work: _Work, tally: _Tally) -> None:
    """Remove what the plan found gone and what is still gone: the plan may be minutes old."""
    gone = list(work.plan.removed)
    for scope in work.scopes if gone else ():
        if scope.location is not None:
            again = scan(Path(scope.source.root), scope.location)
            place = Place(gone, again.files, [file.path for file in again.failed])
            gone = [file for file in place.gone() if scope.holds(file.path)] + [
                file for file in gone if not scope.holds(file.path)
            ]
    for files in _parts_of(gone, ROWS_PER_WRITE):
        failpoint("sync.removing")
        with database.write() as session:
            tally.chunks_removed += remove_documents(
                session, base.id, [file.document_id for file in files]
            )
    tally.changes["removed"] += [file.path for file in gone]


def _report(base: KnowledgeBase, tally: _Tally, started: float) -> IngestReport:
    """Return the report, by path: files are done in no certain order."""
    return IngestReport(
        kb=base.name,
        added=len(tally.changes["added"]),
        changed=len(tally.changes["changed"]),
        moved=len(tally.changes["moved"]),
        unchanged=tally.unchanged,
        removed=len(tally.changes["removed"]),
        empty=tuple(sorted(tally.empty)),
        failed=tuple(sorted(tally.failed, key=lambda file: file.path)),
        chunks_embedded=tally.embedded,
        chunks_reused=tally.reused,
        chunks_removed=tally.chunks_removed,
        seconds=time.monotonic() - started,
        changes={kind: tuple(sorted(paths)) for kind, paths in tally.changes.items()},
        notes=tuple(sorted(tally.notes, key=lambda note: note.path)),
    )


def _parts_of(items: Sequence[_T], size: int) -> Iterator[Sequence[_T]]:
    for first in range(0, len(items), size):
        yield items[first : first + size]


# Parse, embed, write


@dataclass(slots=True)
class _Lot:
    """Documents that are embedded together, and the strings to embed, by hash."""

    documents: list[PreparedDocument] = field(default_factory=list)
    strings: dict[bytes, str] = field(default_factory=dict)

    @property
    def is_full(self) -> bool:
        return len(self.strings) >= GATHERED_STRINGS or len(self.documents) >= GATHERED_DOCUMENTS


class _Writer:
    """Takes the files to parse through to their transactions, gathering work across files.

        read_ahead ──> _take: split, hash ──> _gathered ──> embedding ──> _write

    While one lot of strings is embedded on a thread, the next files are parsed by the children
    and prepared here; then the first lot's documents are written, each in its transaction.
    """

    def __init__(
        self,
        parts: SyncParts,
        base: KnowledgeBase,
        source: Source,
        plan: Plan,
        options: SyncOptions,
        tally: _Tally,
    ) -> None:
        self._parts = parts
        self._target = _target(parts, base)
        self._source = source
        self._files = plan.to_parse
        self._changed = {file.path for file in plan.changed}
        self._options = options
        self._tally = tally
        self._gathered = _Lot()
        self._in_work: tuple[_Lot, Future[None]] | None = None
        self._is_stopping = False

    def run(self) -> None:
        reading = read_ahead(self._parts.parser, self._files, self._options.is_cancelled)
        with ThreadPoolExecutor(1, thread_name_prefix="embedding") as thread, closing(reading):
            try:
                for file, found in reading:
                    self._stop_if_cancelled()
                    self._take(file, found)
                    if self._in_work and self._in_work[1].done():
                        self._finish()
                    if self._gathered.is_full:
                        self._begin(thread)
                self._begin(thread)
                self._finish()
            finally:
                self._is_stopping = True  # what the thread has not embedded yet stays undone

    def _begin(self, thread: ThreadPoolExecutor) -> None:
        """Have what was gathered embedded, after the lot before it was written."""
        self._finish()
        lot, self._gathered = self._gathered, _Lot()
        self._in_work = lot, thread.submit(self._embed_new, lot)

    def _finish(self) -> None:
        """Wait for the lot that is being embedded and write its documents."""
        if self._in_work is None:
            return
        lot, embedded = self._in_work
        self._in_work = None
        embedded.result()
        for document in lot.documents:
            self._write(document, lot.strings)

    def _take(self, file: FoundFile, found: LoadedDocument | LoadError | OSError) -> None:
        if isinstance(found, LoadError):
            self._fail(file, str(found))
            return
        if isinstance(found, OSError):
            self._fail(file, f"cannot be read: {found.strerror or found}")
            return
        failpoint("sync.parsed")
        # Times count only if the file stood still while it was read.
        key = file.stat_key if _still(file) else ""
        document, strings = prepare(file.path, key, found)
        self._gathered.documents.append(document)
        for chunk, string in zip(document.chunks, strings, strict=True):
            self._gathered.strings[chunk.text_hash] = string

    def _fail(self, file: FoundFile, error: str) -> None:
        content_hash, key = _failed_bytes(file)
        with self._parts.database.write() as session:
            record_failure(
                session,
                self._source,
                file.path,
                error=error,
                content_hash=content_hash,
                loader=loader_version(file.path),
                stat_key=key,
            )
        self._tally.failed.append(FailedFile(file.path, error))
        _advance(
            self._options,
            self._tally,
            file.path,
            "failed",
            size_bytes=file.size_bytes,
            error=error,
        )

    def _embed_new(self, lot: "_Lot") -> None:
        target = self._target
        with self._parts.database.read() as session:
            stored = find_embeddings(session, target.base.embedder_id, lot.strings)
        missing = {key: text for key, text in lot.strings.items() if key not in stored}
        self._embed(missing, target)

    def _embed(self, strings: Mapping[bytes, str], target: _Target) -> None:
        """Embed strings, longest first so that a batch pads little; store them as they come."""
        ordered = sorted(strings, key=lambda key: -len(strings[key]))
        for part in _parts_of(ordered, STORED_VECTORS):
            self._stop_if_cancelled()
            vectors = target.embedder.embed_array([strings[key] for key in part])
            failpoint("sync.embedded")
            with self._parts.database.write() as session:
                store_embeddings(
                    session, target.base.embedder_id, dict(zip(part, vectors, strict=True))
                )
            self._tally.embedded += len(part)
            failpoint("sync.vectors-stored")

    def _write(self, document: PreparedDocument, strings: Mapping[bytes, str]) -> None:
        while True:
            try:
                with self._parts.database.write() as session:
                    counts = write_document(session, self._target.base, self._source, document)
                    failpoint("sync.writing")
                break
            except MissingVectorsError as exc:
                # Another process swept them between our check and this transaction.
                missing = {key: text for key, text in strings.items() if key in exc.hashes}
                self._embed(missing, self._target)
            except EmbedderMovedError:  # go on with the one that the base has now
                with self._parts.database.read() as session:
                    base = find_base(session, self._target.base.id)
                self._target = _target(self._parts, base)
        failpoint("sync.written")
        tally = self._tally
        tally.reused += counts.reused
        tally.chunks_removed += counts.removed
        tally.chunks += counts.added
        kind = "changed" if document.path in self._changed else "added"
        tally.changes[kind].append(document.path)
        notes = (*document.loaded.notes, *(flag.detail for flag in document.loaded.flags))
        tally.notes += [FileNote(document.path, note) for note in notes]
        if not document.chunks:
            tally.empty.append(document.path)
        _advance(
            self._options,
            tally,
            document.path,
            "done" if document.chunks else "empty",
            size_bytes=document.loaded.size_bytes,
        )

    def _stop_if_cancelled(self) -> None:
        if self._is_stopping or self._options.is_cancelled():
            raise CancelledError("cancelled; what was stored so far stays, run it again to go on")


def _failed_bytes(file: FoundFile) -> tuple[str | None, str]:
    """Return hash and times of a file that failed; (None, "") if it may have changed since.

    A file that was still being copied when it was parsed must be parsed again.
    """
    if file.content_hash:
        return file.content_hash, file.stat_key
    try:
        if not _still(file):
            return None, ""
        content_hash = hash_file(file)
    except OSError:
        return None, ""
    return (content_hash, file.stat_key) if _still(file) else (None, "")


def _still(file: FoundFile) -> bool:
    try:
        return stat_key(file.location) == file.stat_key
    except OSError:
        return False
