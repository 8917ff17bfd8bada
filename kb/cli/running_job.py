"""Work of the command line as a job with a heartbeat, so that other processes know of it."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kb.errors import CancelledError, KBError, StorageError
from kb.records import KnowledgeBase

if TYPE_CHECKING:
    from kb.storage.jobs import JobProgress, JobState
    from kb.wiring import Services

# A third of the age at which a silent job counts as dead.
HEARTBEAT_S = 10.0


@dataclass(slots=True)
class RunningJob:
    """This command as a job: what its heartbeat tells other processes, and what they ask of it."""

    id: str
    owner: str
    cancelled: threading.Event
    progress: "JobProgress | None" = None
    report: Mapping[str, Any] | None = None


@contextmanager
def running_job(
    services: "Services", base: KnowledgeBase, *, options: Mapping[str, Any] | None = None
) -> Iterator[RunningJob]:
    """Register work on a base as a job with a heartbeat, so that other processes know of it."""
    from kb.storage.jobs import (
        create_job,
        drop_old_jobs,
        finish_job,
        mark_interrupted,
        new_owner,
    )

    owner = new_owner()
    with services.database.write() as session:
        mark_interrupted(session)
        drop_old_jobs(session)  # watching makes many
        created = create_job(session, base.id, "ingest", options=options or {}, owner=owner)
    job = RunningJob(created.id, owner, threading.Event())
    stopped = threading.Event()

    def keep_alive() -> None:
        while not stopped.wait(HEARTBEAT_S):
            # A heartbeat that cannot be written (a full disk) is tried again; the sync itself
            # meets the same trouble and says so.
            with suppress(StorageError):
                _beat(services, job)

    thread = threading.Thread(target=keep_alive, name="job-heartbeat", daemon=True)
    thread.start()
    state: JobState = "failed"
    error = None
    try:
        yield job
        state = "done"
    except (KeyboardInterrupt, CancelledError):
        state = "cancelled"
        raise
    except KBError as exc:
        error = str(exc)
        raise
    finally:
        stopped.set()
        thread.join(timeout=HEARTBEAT_S)
        with suppress(StorageError), services.database.write() as session:
            finish_job(
                session,
                job.id,
                owner,
                state=state,
                error=error,
                report=job.report,
                progress=job.progress,
            )


def _beat(services: "Services", job: RunningJob) -> None:
    from kb.storage.jobs import beat

    with services.database.write() as session:
        current = beat(session, job.id, job.owner, progress=job.progress)
    if current is not None and current.cancel_asked:
        job.cancelled.set()
