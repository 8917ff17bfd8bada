"""Jobs: who is at work on a knowledge base, how far they are, and what they made of each file.

    queued ──claim──> running ──finish──> done | failed | cancelled
       ^                 │
       └────release──────┤ the server stops, or its heartbeat grows old: resumable
                         └──> interrupted: it died and cannot be resumed (the reason says why)

A job has an owner, the random id of one process at work, and a heartbeat. Only the owner may
report progress or finish it; an owner that has been silent for `HEARTBEAT_LIFETIME_S` is taken
for dead. Upload jobs hold all they need in the database and in blobs, so any server can claim
them again; an `ingest` job reads the user's folders and is resumed by running it again.
"""

import secrets
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from sqlalchemy import ColumnElement, and_, delete, exists, func, insert, or_, select, update
from sqlalchemy.orm import Session

from kb.errors import InvalidInputError, JobNotFoundError
from kb.storage.tables import JobFileRow, JobRow

JobKind = Literal["ingest", "upload"]
JobState = Literal["queued", "running", "done", "failed", "cancelled", "interrupted"]
FileState = Literal["queued", "done", "failed", "empty", "unchanged"]

RESUMABLE_STATES: tuple[JobState, ...] = ("queued", "running")
HEARTBEAT_LIFETIME_S = 30.0
# Finished jobs are kept for looking at; a folder drop of thousands has as many rows.
JOB_LIFETIME_DAYS = 7


@dataclass(frozen=True, slots=True)
class JobProgress:
    """How far a job is. `chunks` counts those stored so far.

    `seconds_left` is None while there is nothing to go by, and at the end.
    """

    bytes_done: int = 0
    bytes_total: int = 0
    files_done: int = 0
    files_total: int = 0
    chunks: int = 0
    seconds_left: float | None = None

    def to_dict(self) -> dict[str, int | float | None]:
        return {
            "bytes_done": self.bytes_done,
            "bytes_total": self.bytes_total,
            "files_done": self.files_done,
            "files_total": self.files_total,
            "chunks": self.chunks,
            "seconds_left": self.seconds_left,
        }


@dataclass(frozen=True, slots=True)
class JobFile:
    """One uploaded file of a job: its display path and the blob that holds its bytes."""

    path: str
    blob: str
    size_bytes: int
    state: FileState = "queued"
    error: str | None = None

    def to_dict(self) -> dict[str, Any]:
        return {"path": self.path, "state": self.state, "error": self.error}


@dataclass(frozen=True, slots=True)
class Job:
    """One ingest, by the command line or of an upload. `report` is the ingest contract."""

    id: str
    kb_id: str
    kind: JobKind
    state: JobState
    owner: str
    cancel_asked: bool
    options: Mapping[str, Any]
    progress: JobProgress
    report: Mapping[str, Any] | None
    error: str | None
    error_type: str | None
    created_at: str
    files: tuple[JobFile, ...] = field(default=())

    @property
    def is_finished(self) -> bool:
        return self.state not in RESUMABLE_STATES

    def to_dict(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "kb_id": self.kb_id,
            "kind": self.kind,
            "state": self.state,
            "progress": self.progress.to_dict(),
            "files": [file.to_dict() for file in self.files],
            "report": None if self.report is None else dict(self.report),
            "error": self.error,
            "error_type": self.error_type,
            "created_at": self.created_at,
        }


def new_owner() -> str:
    """Return a random id for one process (or one run) that works on jobs."""
    return secrets.token_hex(16)


def create_job(
    session: Session,
    kb_id: str,
    kind: JobKind,
    *,
    options: Mapping[str, Any] | None = None,
    files: Sequence[JobFile] = (),
    owner: str = "",
) -> Job:
    """Record a job: running when it has an `owner`, else queued for the server.

    The paths of `files` must differ; `options` must be JSON.
    """
    progress = JobProgress(
        bytes_total=sum(file.size_bytes for file in files), files_total=len(files)
    )
    row = JobRow(
        id=secrets.token_hex(16),
        kb_id=kb_id,
        kind=kind,
        state="running" if owner else "queued",
        owner=owner,
        heartbeat_at=time.time() if owner else 0.0,
        cancel_asked=False,
        options=dict(options or {}),
        progress=progress.to_dict(),
        report=None,
        error=None,
        created_at=datetime.now(UTC).isoformat(timespec="microseconds"),
    )
    session.add(row)
    session.flush()
    if files:
        session.execute(
            insert(JobFileRow),
            [
                {
                    "job_id": row.id,
                    "path": file.path,
                    "blob": file.blob,
                    "size_bytes": file.size_bytes,
                    "state": file.state,
                    "error": file.error,
                }
                for file in files
            ],
        )
    return _job(row, tuple(files))


def find_job(session: Session, job_id: str) -> Job:
    """Return a job with its files, ordered by path.

    Raises:
        JobNotFoundError: there is none with this id.
    """
    row = session.get(JobRow, job_id)
    if row is None:
        raise JobNotFoundError(job_id)
    return _job(row, list_job_files(session, job_id))


def list_jobs(
    session: Session, kb_id: str | None = None, *, states: Iterable[JobState] | None = None
) -> list[Job]:
    """Return jobs without their files, oldest first."""
    query = select(JobRow).order_by(JobRow.created_at, JobRow.id)
    if kb_id is not None:
        query = query.where(JobRow.kb_id == kb_id)
    if states is not None:
        query = query.where(JobRow.state.in_(tuple(states)))
    return [_job(row) for row in session.scalars(query)]


def list_job_files(session: Session, job_id: str) -> tuple[JobFile, ...]:
    query = (
        select(
            JobFileRow.path,
            JobFileRow.blob,
            JobFileRow.size_bytes,
            JobFileRow.state,
            JobFileRow.error,
        )
        .where(JobFileRow.job_id == job_id)
        .order_by(JobFileRow.path)
    )
    # Plain rows, not objects of the mapper: a folder drop has thousands.
    return tuple(
        JobFile(path, blob, size_bytes, state, error)  # type: ignore[arg-type]
        for path, blob, size_bytes, state, error in session.execute(query)
    )


def count_jobs(session: Session) -> dict[str, int]:
    """Return how many jobs are in each state; states without jobs are left out."""
    query = select(JobRow.state, func.count()).group_by(JobRow.state)
    return {row[0]: int(row[1]) for row in session.execute(query)}


def claim_upload(session: Session, owner: str, *, now: float | None = None) -> Job | None:
    """Take the oldest upload job that nobody works on; None when there is none.

    The caller's session must be a write session, so that no two owners take the same job.
    """
    now = time.time() if now is None else now
    row = session.scalars(
        select(JobRow)
        .where(JobRow.kind == "upload", or_(JobRow.state == "queued", _is_abandoned(now)))
        .order_by(JobRow.created_at, JobRow.id)
        .limit(1)
    ).first()
    if row is None:
        return None
    row.state = "running"
    row.owner = owner
    row.heartbeat_at = now
    return _job(row, list_job_files(session, row.id))


def retry_job(session: Session, job_id: str) -> Job:
    """Queue a job with the files of an upload that failed, and only those.

    Raises:
        JobNotFoundError: there is none with this id.
        InvalidInputError: it is not an upload that ended with failures.
    """
    job = find_job(session, job_id)
    failed = [replace(file, state="queued", error=None) for file in job.files if file.error]
    if job.kind != "upload" or not job.is_finished or not failed:
        raise InvalidInputError("job", "has no failed files to try again")
    options = {**job.options, "prune": False, "retry_failed": True}
    return create_job(session, job.kb_id, "upload", options=options, files=failed)


def beat(
    session: Session,
    job_id: str,
    owner: str,
    *,
    progress: JobProgress | None = None,
    files: Iterable[JobFile] = (),
    now: float | None = None,
) -> Job | None:
    """Say that `owner` is alive, and how far it is; `files` are those whose state changed.

    Returns:
        The job (without its files), whose `cancel_asked` the owner must heed; None when the job
        is no longer the owner's: its knowledge base was deleted, or another process took it over.
    """
    row = _owned(session, job_id, owner)
    if row is None:
        return None
    row.heartbeat_at = time.time() if now is None else now
    if progress is not None:
        row.progress = progress.to_dict()
    _update_files(session, job_id, files)
    return _job(row)


def owned_job(session: Session, job_id: str, owner: str) -> Job | None:
    """Return a running job without its files; None when it is not `owner`'s (any more)."""
    row = _owned(session, job_id, owner)
    return None if row is None else _job(row)


def release_job(
    session: Session, job_id: str, owner: str, *, files: Iterable[JobFile] = ()
) -> None:
    """Give a running job back to the queue, for the next server to resume.

    `files` are those whose state was not yet reported, so that their story is not lost.
    """
    row = _owned(session, job_id, owner)
    if row is not None:
        row.state = "queued"
        row.owner = ""
        row.heartbeat_at = 0.0
        _update_files(session, job_id, files)


def finish_job(
    session: Session,
    job_id: str,
    owner: str,
    *,
    state: JobState,
    report: Mapping[str, Any] | None = None,
    error: str | None = None,
    error_type: str | None = None,
    progress: JobProgress | None = None,
    files: Iterable[JobFile] = (),
) -> None:
    """End a job; does nothing when the job is no longer the owner's.

    `error` is the reason for people; `error_type` the name of its class, for a page that can
    offer a way out (such as saying yes to a `ConfirmationNeededError`).
    """
    row = _owned(session, job_id, owner)
    if row is None:
        return
    row.state = state
    row.report = None if report is None else dict(report)
    row.error = error
    row.error_type = error_type
    if progress is not None:
        row.progress = progress.to_dict()
    _update_files(session, job_id, files)


def ask_cancel(session: Session, job_id: str, *, now: float | None = None) -> Job:
    """Cancel a job: at once when nobody works on it, else at its owner's next heartbeat.

    A finished job stays as it is.

    Raises:
        JobNotFoundError: there is none with this id.
    """
    row = session.get(JobRow, job_id)
    if row is None:
        raise JobNotFoundError(job_id)
    now = time.time() if now is None else now
    is_idle = row.state == "queued" or (
        row.state == "running" and row.heartbeat_at < now - HEARTBEAT_LIFETIME_S
    )
    if is_idle:
        row.state = "cancelled"
        row.error = "cancelled before it was done"
    if row.state == "running":
        row.cancel_asked = True
    return _job(row, list_job_files(session, job_id))


def is_any_job_live(
    session: Session, except_job: str | None = None, *, now: float | None = None
) -> bool:
    """Return whether some other job works, or will, on rows that no chunk uses yet.

    An upload job whose owner died counts, since a server will resume it; an ingest that died
    does not, since nobody may ever run it again.
    """
    now = time.time() if now is None else now
    live = or_(
        JobRow.state == "queued",
        and_(JobRow.state == "running", JobRow.kind == "upload"),
        and_(JobRow.state == "running", JobRow.heartbeat_at >= now - HEARTBEAT_LIFETIME_S),
    )
    query = select(exists().where(live, JobRow.id != (except_job or "")))
    return bool(session.scalar(query))


def mark_interrupted(session: Session, *, now: float | None = None) -> int:
    """Mark ingests of the command line whose process died; returns how many."""
    now = time.time() if now is None else now
    found = session.execute(
        update(JobRow)
        .where(JobRow.kind == "ingest", _is_abandoned(now))
        .values(
            state="interrupted",
            error="its process stopped before it was done; run the same `kb ingest` to go on",
        )
        .returning(JobRow.id)
    )
    return len(found.all())


def drop_old_jobs(session: Session, *, now: datetime | None = None) -> int:
    """Forget jobs that ended long ago, with the state of their files; returns how many."""
    oldest = (now or datetime.now(UTC)) - timedelta(days=JOB_LIFETIME_DAYS)
    found = session.execute(
        delete(JobRow)
        .where(
            JobRow.state.not_in(RESUMABLE_STATES),
            JobRow.created_at < oldest.isoformat(timespec="microseconds"),
        )
        .returning(JobRow.id)
    )
    return len(found.all())


def _is_abandoned(now: float) -> ColumnElement[bool]:
    return and_(JobRow.state == "running", JobRow.heartbeat_at < now - HEARTBEAT_LIFETIME_S)


def _owned(session: Session, job_id: str, owner: str) -> JobRow | None:
    row = session.get(JobRow, job_id)
    return row if row is not None and row.state == "running" and row.owner == owner else None


def _update_files(session: Session, job_id: str, files: Iterable[JobFile]) -> None:
    changed = [
        {"job_id": job_id, "path": file.path, "state": file.state, "error": file.error}
        for file in files
    ]
    if changed:
        session.execute(update(JobFileRow), changed)


def _job(row: JobRow, files: tuple[JobFile, ...] = ()) -> Job:
    return Job(
        id=row.id,
        kb_id=row.kb_id,
        kind=row.kind,  # type: ignore[arg-type]  # the column's check constraint
        state=row.state,  # type: ignore[arg-type]
        owner=row.owner,
        cancel_asked=row.cancel_asked,
        options=row.options,
        progress=JobProgress(**row.progress),
        report=row.report,
        error=row.error,
        error_type=row.error_type,
        created_at=row.created_at,
        files=files,
    )
