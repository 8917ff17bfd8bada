"""Erase documents, and prove it: afterwards no file of the data folder holds their text.

`remove_documents` makes text unreachable; bytes of it may stay in the write-ahead log, in pages
that SQLite has freed, in merged terms of full text, in older index snapshots, in the backup of an
upgrade. `erase` clears all of these, then looks for short strings cut from the text beforehand in
the bytes of every file, under the write lock, and returns a receipt of every place it looked at.

Not covered: copies elsewhere (the user's own files, backups of the disk), memory of other
processes, and blocks that a file system or an SSD has freed but not overwritten. The receipt says
so. Files that hold no user's text (`SKIPPED`) are not searched.
"""

import json
import os
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Row, delete, exists, select
from sqlalchemy.orm import Session

from kb.errors import KBError, StorageError
from kb.failpoints import failpoint
from kb.models import CHECKPOINTS, EMBEDDERS, FOLDER
from kb.records import Document
from kb.retrieval.retrieve import Retriever
from kb.storage import sqlite
from kb.storage.bases import list_bases
from kb.storage.blobs import Blobs
from kb.storage.database import Database
from kb.storage.documents import remove_documents
from kb.storage.embeddings import sweep_embeddings
from kb.storage.jobs import HEARTBEAT_LIFETIME_S, RESUMABLE_STATES, is_any_job_live, list_jobs
from kb.storage.tables import (
    ChunkRow,
    DocumentRow,
    DocumentVersionRow,
    EmbeddingRow,
    FeedbackRow,
    JobFileRow,
    JobRow,
    KnowledgeBaseRow,
    SnapshotRow,
    SourceRow,
    TracePassageRow,
    TraceRow,
)
from kb.storage.traces import redact_traces
from kb.upkeep.evidence import Erased, Evidence, Mark, gather
from kb.upkeep.leftovers import remove_leftovers
from kb.upkeep.needles import Finder

# How long a job or a reader of the database is waited for; a killed job looks alive for most of it.
WAIT_S = HEARTBEAT_LIFETIME_S + 10
# Weights of models: nobody's text, and tens of gigabytes.
SKIPPED = (FOLDER, CHECKPOINTS, EMBEDDERS)
# Folders of a benchmark or a conversion that was killed; one at work is younger.
ABANDONED_AFTER_S = 3600
REMOVED_NAME = "[removed]"
_OFFICE_PREFIX = "kb-office-"


@dataclass(frozen=True, slots=True)
class Place:
    """A place that was looked at: how much of it, and what was found there."""

    place: str
    checked: str
    found: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        return {"place": self.place, "checked": self.checked, "found": list(self.found)}


@dataclass(frozen=True, slots=True)
class Receipt:
    """What was erased, where it was looked for, and what that shows.

    `proven` asks for two things: nothing was found, and every text gave enough strings to look
    for that stand nowhere else.
    """

    documents: tuple[Erased, ...]
    places: tuple[Place, ...]
    skipped: tuple[str, ...]
    notes: tuple[str, ...]
    weak: tuple[str, ...]
    seconds: float

    @property
    def found(self) -> tuple[str, ...]:
        return tuple(f"{place.place}: {what}" for place in self.places for what in place.found)

    @property
    def proven(self) -> bool:
        return not self.found and not self.weak

    def to_dict(self) -> dict[str, Any]:
        return {
            "proven": self.proven,
            "documents": [document.to_dict() for document in self.documents],
            "places": [place.to_dict() for place in self.places],
            "found": list(self.found),
            "weak": list(self.weak),
            "skipped": list(self.skipped),
            "notes": list(self.notes),
            "seconds": round(self.seconds, 1),
        }


def erase(
    database: Database,
    retriever: Retriever,
    blobs: Blobs,
    documents: Sequence[Document],
    *,
    wait_s: float = WAIT_S,
) -> Receipt:
    """Remove `documents`, clear what removed documents leave behind, and search for them.

    Without documents it clears what earlier removals left behind; there is nothing to search for
    then. Other processes may go on reading, and wait for the lock while they write.

    Raises:
        KBError: a job is at work or waiting; nothing was changed.
        StorageError: somebody keeps reading the database, or the disk is too full; the message
            says whether the documents are removed already.
    """
    started = time.monotonic()
    _wait_for_quiet(database, wait_s)
    evidence = gather(database, blobs, documents)
    _remove(database, evidence, documents)
    try:
        _wipe(database, retriever, blobs, documents, wait_s)
    except StorageError as exc:
        raise StorageError(
            f"the documents are removed, but bytes of them may remain: {exc}; then run "
            "`kb docs remove --prove` without a document to clear them"
        ) from exc
    places = _prove(database, blobs, evidence, documents)
    home = database.path.parent
    skipped = [f"{name}/ (weights of models)" for name in SKIPPED if (home / name).exists()]
    return Receipt(
        documents=tuple(evidence.documents),
        places=tuple(places),
        skipped=tuple(skipped),
        notes=(*evidence.notes, *_standing_notes(database, evidence)),
        weak=tuple(evidence.weak),
        seconds=time.monotonic() - started,
    )


# Before


def _wait_for_quiet(database: Database, wait_s: float) -> None:
    """Return when no job is at work, nobody reads an old state, and there is room to rewrite."""
    _wait_for_jobs(database, wait_s)
    size_bytes = database.path.stat().st_size
    for folder in {database.path.parent, Path(tempfile.gettempdir())}:
        free_bytes = shutil.disk_usage(folder).free
        if free_bytes < size_bytes * 1.1:  # the file is copied once, with some overhead
            raise StorageError(
                f"erasing rewrites the database and needs {size_bytes * 11 // 10 // 2**20 + 1} MB "
                f"at {str(folder)!r}, where {free_bytes // 2**20} MB are free; nothing was changed"
            )
    if not database.empty_log(wait_s):
        raise StorageError(
            f"another process has been reading the database for {wait_s:.0f} s, and its view keeps "
            "older bytes alive; end it (a running export or `kb verify`?) and try again; nothing "
            "was changed"
        )


def _wait_for_jobs(database: Database, wait_s: float) -> None:
    deadline = time.monotonic() + wait_s
    while True:
        with database.read() as session:
            if not is_any_job_live(session):
                return
            job = list_jobs(session, states=RESUMABLE_STATES)[-1]
        if time.monotonic() >= deadline:
            raise KBError(
                f"an {job.kind} is {job.state} (job {job.id}) and may bring the text back; wait "
                "for it, or stop it with Ctrl-C or `POST /jobs/{job}/cancel`, then try again "
                "(a queued upload waits for `kb serve`); nothing was changed"
            )
        time.sleep(min(1.0, wait_s))


# Remove and clear


def _remove(database: Database, evidence: Evidence, documents: Sequence[Document]) -> None:
    """Remove rows, stored answers and names in one transaction."""
    finder = Finder(p for p, mark in evidence.marks.items() if mark.kind == "text")
    with database.write() as session:
        if is_any_job_live(session):
            raise KBError("a job has just begun; nothing was changed, try again when it is done")
        _forget_answers(session, finder, [d.id for d in documents], evidence.names)
        for document in documents:
            remove_documents(session, document.kb_id, [document.id])
        _forget_names(session, finder, evidence.names, {d.kb_id for d in documents})
        for kb_id in {document.kb_id for document in documents}:
            session.execute(delete(SnapshotRow).where(SnapshotRow.kb_id == kb_id))
        for source_id in {document.source_id for document in documents}:
            session.execute(
                delete(SourceRow).where(
                    SourceRow.id == source_id,
                    ~exists().where(DocumentRow.source_id == source_id),
                )
            )
        sweep_embeddings(session)
        failpoint("erase.removing")
    failpoint("erase.removed")


def _forget_answers(session: Session, finder: Finder, ids: Sequence[str], names: set[str]) -> None:
    """Redact, with their questions, answers that were shown the documents or repeat their text."""
    traces = set(
        session.scalars(
            select(TracePassageRow.trace_id).where(TracePassageRow.document_id.in_(ids))
        )
    )
    for trace in _stored_answers(session):
        if finder.find(_told(trace)) or _names(trace) & names:
            traces.add(trace.id)
    redact_traces(session, sorted(traces), with_questions=True)


def _stored_answers(session: Session) -> Iterator[Row[Any]]:
    """Yield what `_told` and `_names` read of each stored answer, a few at a time."""
    columns = (
        TraceRow.id,
        TraceRow.question,
        TraceRow.answer,
        TraceRow.rewritten,
        TraceRow.answer_span,
        TraceRow.request,
        TraceRow.prompt,
        FeedbackRow.comment,
    )
    rows = select(*columns).outerjoin(FeedbackRow, FeedbackRow.trace_id == TraceRow.id)
    yield from session.execute(rows, execution_options={"yield_per": 500})


def _told(trace: Row[Any]) -> bytes:
    """Return everything in a stored answer that people or models wrote."""
    kept = json.dumps([trace.request, trace.prompt])  # as the columns are stored
    texts = (trace.question, trace.answer, trace.rewritten, trace.answer_span, kept, trace.comment)
    return "\0".join(text or "" for text in texts).encode("utf-8", "surrogatepass")


def _names(trace: Row[Any]) -> set[str]:
    """Return the documents that a stored question was limited to."""
    return set(((trace.request or {}).get("filter") or {}).get("documents", ()))


def _forget_names(session: Session, finder: Finder, names: set[str], kb_ids: set[str]) -> None:
    """Take the documents' names, and their text, out of the reports of jobs."""

    def clean(text: str) -> str:
        parts = set(text.split(" → "))
        is_about = bool(parts & names) or any(repr(name) in text for name in names)
        is_text = bool(finder.find(text.encode("utf-8", "surrogatepass")))
        return REMOVED_NAME if is_about or is_text else text

    for job in session.scalars(select(JobRow).where(JobRow.kb_id.in_(kb_ids))):
        job.report = _mapped(job.report, clean)
        job.options = _mapped(job.options, clean)
        job.error = clean(job.error) if job.error else job.error
        session.execute(
            delete(JobFileRow).where(JobFileRow.job_id == job.id, JobFileRow.path.in_(names))
        )


def _mapped(value: Any, change: Callable[[str], str]) -> Any:
    """Return JSON with every string in it changed."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {key: _mapped(item, change) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_mapped(item, change) for item in value]
    return value


def _wipe(
    database: Database,
    retriever: Retriever,
    blobs: Blobs,
    documents: Sequence[Document],
    wait_s: float,
) -> None:
    """Clear what removed documents leave in files."""
    with database.read() as session:
        bases = list_bases(session)
    for base in bases:
        with database.write() as session:
            sqlite.optimize_fulltext(session, base.id)
    failpoint("erase.optimized")
    remove_leftovers(database, blobs)
    had_files = _drop_snapshots(database, {document.kb_id for document in documents})
    for base in bases:
        if base.id in had_files:  # made again now, so that the next search need not
            retriever.forget(base.id)
            retriever.view(base).save()
    failpoint("erase.indexed")
    for path in database.backup_files():
        path.unlink(missing_ok=True)
    for path in _abandoned_folders(database.path.parent):
        shutil.rmtree(path, ignore_errors=True)
    database.vacuum()
    failpoint("erase.vacuumed")
    if not database.empty_log(wait_s):
        raise StorageError("another process keeps reading an older state of the database; end it")
    failpoint("erase.emptied")


def _drop_snapshots(database: Database, kb_ids: set[str]) -> set[str]:
    """Drop the index files of these bases, and any that removals have overtaken.

    Returns the ids of bases that had files. An index is made again from the database.
    """
    folder = database.path.parent / "index"
    had_files = {path.name for path in folder.glob("*/") if any(path.iterdir())}
    with database.write() as session:
        outdated = session.execute(
            select(SnapshotRow.id)
            .join(KnowledgeBaseRow, KnowledgeBaseRow.id == SnapshotRow.kb_id)
            .where(SnapshotRow.seq < KnowledgeBaseRow.last_seq)
        )
        session.execute(delete(SnapshotRow).where(SnapshotRow.id.in_(outdated.scalars().all())))
        named = set(session.scalars(select(SnapshotRow.id)))
        # Under the lock: a snapshot that is being written cannot be named meanwhile, and its
        # writer, finding the file gone, says that nothing is lost.
        for path in folder.glob("*/*"):
            if path.stem not in named:
                path.unlink(missing_ok=True)
    return had_files & kb_ids


def _abandoned_folders(home: Path) -> list[Path]:
    """Return folders that a killed benchmark or a killed conversion left behind."""
    oldest = time.time() - ABANDONED_AFTER_S
    found = [*(home / "bench").glob("*/"), *Path(tempfile.gettempdir()).glob(f"{_OFFICE_PREFIX}*/")]
    return [path for path in found if _is_ours(path) and _newest(path) < oldest]


def _is_ours(path: Path) -> bool:
    return not path.is_symlink() and path.stat().st_uid == os.getuid()


def _newest(folder: Path) -> float:
    return max(path.stat().st_mtime for path in (folder, *folder.rglob("*")))


# Prove


def _prove(
    database: Database, blobs: Blobs, evidence: Evidence, documents: Sequence[Document]
) -> list[Place]:
    """Look everywhere, while nobody can write."""
    ids = [document.id for document in documents]
    with database.write() as session:
        return [
            _check_rows(session, ids, evidence.chunk_ids),
            _check_fulltext(session, evidence),
            _check_snapshots(session, database.path.parent),
            _check_blobs(blobs, evidence.hashes),
            _check_answers(session, evidence, ids),
            Place("conversations", "none are stored"),
            _check_jobs(session, evidence),
            _check_backups(database),
            *_search_files(database.path.parent, evidence.marks),
        ]


def _check_rows(session: Session, ids: Sequence[str], chunk_ids: Sequence[int]) -> Place:
    found = []
    for table, column in (
        (DocumentRow, DocumentRow.id),
        (DocumentVersionRow, DocumentVersionRow.document_id),
        (ChunkRow, ChunkRow.document_id),
        (TracePassageRow, TracePassageRow.document_id),
    ):
        if session.scalar(select(exists().where(column.in_(ids)))):
            found.append(f"rows in {table.__tablename__}")
    unused = select(EmbeddingRow.id).where(
        ~exists().where(ChunkRow.embedding_id == EmbeddingRow.id)
    )
    if session.scalar(unused.limit(1)) is not None:
        found.append("vectors that no chunk uses")
    return Place("rows and vectors", f"{len(ids)} documents, {len(chunk_ids)} chunks", tuple(found))


def _check_fulltext(session: Session, evidence: Evidence) -> Place:
    found = []
    for kb_id, terms in evidence.terms.items():
        left = sqlite.fulltext_frequencies(session, kb_id, terms)
        if left:
            found.append(f"{len(left)} terms")
        if left_rows := sqlite.fulltext_rows(session, kb_id, evidence.chunk_ids):
            found.append(f"{len(left_rows)} rows")
    n_terms = sum(map(len, evidence.terms.values()))
    return Place("full text", f"{n_terms} terms that no other document has", tuple(found))


def _check_snapshots(session: Session, home: Path) -> Place:
    named = set(session.scalars(select(SnapshotRow.id)))
    files = [path for path in (home / "index").glob("*/*") if path.is_file()]
    found = [str(path.relative_to(home)) for path in files if path.stem not in named]
    stale = session.scalar(
        select(SnapshotRow.id)
        .join(KnowledgeBaseRow, KnowledgeBaseRow.id == SnapshotRow.kb_id)
        .where(SnapshotRow.seq < KnowledgeBaseRow.last_seq)
    )
    if stale:
        found.append(f"snapshot {stale} is older than the last change")
    return Place("index snapshots", f"{len(files)} files, made after the removal", tuple(found))


def _check_blobs(blobs: Blobs, hashes: set[str]) -> Place:
    found = [
        f"blobs/{h}: another document has the same bytes"
        for h in sorted(hashes)
        if blobs.path(h).exists()
    ]
    return Place("uploaded files", f"{len(hashes)} by their hash", tuple(found))


def _check_answers(session: Session, evidence: Evidence, ids: Sequence[str]) -> Place:
    finder = Finder(p for p, mark in evidence.marks.items() if mark.kind == "text")
    quotes = session.scalars(select(TracePassageRow.quote)).all()
    n_answers = 0
    found = []
    for trace in _stored_answers(session):
        n_answers += 1
        if finder.find(_told(trace)) or _names(trace) & evidence.names:
            found.append(f"answer {trace.id}")
    found += ["a quote"] * bool(finder.find_in_all(q.encode() for q in quotes))
    return Place("stored answers", f"{n_answers} answers, {len(quotes)} quotes", tuple(found))


def _check_jobs(session: Session, evidence: Evidence) -> Place:
    finder = Finder(p for p, mark in evidence.marks.items() if mark.kind in ("text", "name"))
    jobs = session.scalars(select(JobRow)).all()
    found = [
        f"the report of job {job.id}"
        for job in jobs
        if finder.find(json.dumps([job.report, job.options, job.error]).encode())
    ]
    return Place("reports of jobs", f"{len(jobs)} reports, for names and errors", tuple(found))


def _check_backups(database: Database) -> Place:
    found = tuple(path.name for path in database.backup_files())
    return Place("backups of upgrades", "files beside the database", found)


def _search_files(home: Path, marks: Mapping[bytes, Mark]) -> Iterator[Place]:
    """Search the bytes of every file of the data folder, and of our temporary folders."""
    finder = Finder(marks)
    size_bytes = 0
    places: dict[str, list[str]] = {}
    counts: Counter[str] = Counter()
    for path, shown in _files(home):
        place = shown.split("/")[0] if "/" in shown else shown
        counts[place] += 1
        try:
            size_bytes += path.stat().st_size
            found = finder.find_in_file(path)
        except FileNotFoundError:  # a lock file or a staged upload that ended just now
            continue
        except OSError as exc:
            places.setdefault(place, []).append(f"{shown}: cannot be read ({exc.strerror})")
            continue
        for pattern, offset in found.items():
            mark = marks[pattern]
            places.setdefault(place, []).append(
                f"{mark.kind} of {mark.document} ({mark.form}) in {shown} at byte {offset}"
            )
    kinds = Counter((mark.kind, mark.form) for mark in marks.values())
    told = ", ".join(f"{n} {kind} {form}" for (kind, form), n in sorted(kinds.items()))
    yield Place("searched for", f"{told or 'nothing'}; in {size_bytes / 2**20:.1f} MB")
    for place in sorted(counts):
        yield Place(
            f"bytes of {place}", _counted(counts[place], "file"), tuple(places.get(place, ()))
        )


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _files(home: Path) -> Iterator[tuple[Path, str]]:
    seen: set[str] = set()  # folders may be links to another disk, and in the end to themselves
    for parent, folders, names in os.walk(home, followlinks=True):
        real = os.path.realpath(parent)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        if Path(parent) == home:
            folders[:] = [name for name in folders if name not in SKIPPED]
        folders.sort()
        for name in sorted(names):
            path = Path(parent, name)
            if path.is_file():
                yield path, path.relative_to(home).as_posix()
    for folder in sorted(Path(tempfile.gettempdir()).glob(f"{_OFFICE_PREFIX}*/")):
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                yield path, f"temporary files/{folder.name}/{path.name}"


def _standing_notes(database: Database, evidence: Evidence) -> Iterator[str]:
    for document in evidence.documents:
        if document.file:
            yield (
                f"{document.file} is still there and is not ours to delete: the next ingest of "
                "its folder brings it back, unless you delete or move it"
            )
    for pid, name in _other_processes(database.path):
        yield (
            f"process {pid} ({name}) uses this data folder and may hold text in memory until it "
            "is restarted"
        )
    yield (
        "not covered: copies outside this folder, backups of the disk, and blocks that the file "
        "system or the disk itself has freed but not overwritten"
    )


def _other_processes(database_path: Path) -> list[tuple[int, str]]:
    import psutil

    found = []
    for process in psutil.process_iter(["name"]):
        try:
            is_using = process.pid != os.getpid() and any(
                file.path == str(database_path) for file in process.open_files()
            )
        except (psutil.Error, OSError):  # another user's, or gone meanwhile
            continue
        if is_using:
            found.append((process.pid, str(process.info["name"])))
    return found
