"""The worker that turns uploads into documents: one thread of the server, one job at a time.

    claim ──> sync_uploads ──> finish: done | failed | cancelled
                  │
                  └─ the server stops: the job goes back to the queue and is resumed at the next
                     start; `kill -9` leaves it running until its heartbeat is old, then likewise

A second thread, alive only during a job, reports progress at most every `REPORT_EVERY_S` and sends
the heartbeat, so that a file that takes minutes to parse does not make its job look dead. One job
that fails, even by a bug, never stops the queue.
"""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

from kb.errors import CancelledError, KBError
from kb.records import IngestReport, KnowledgeBase
from kb.storage.bases import find_base, list_bases
from kb.storage.blobs import Blobs
from kb.storage.database import Database
from kb.storage.jobs import (
    HEARTBEAT_LIFETIME_S,
    Job,
    JobFile,
    JobProgress,
    JobState,
    beat,
    claim_upload,
    drop_old_jobs,
    finish_job,
    mark_interrupted,
    new_owner,
    owned_job,
    release_job,
)

if TYPE_CHECKING:
    from ingest.sync import Progress, SyncParts

logger = logging.getLogger(__name__)

REPORT_EVERY_S = 0.5
HEARTBEAT_EVERY_S = HEARTBEAT_LIFETIME_S / 3
# How often the queue is looked at without being woken: another process may have queued a job, or
# one's owner may have died.
POLL_EVERY_S = 2.0
# How long a stop waits for the file that is being parsed; after that the job looks killed.
STOP_TIMEOUT_S = 15.0


@dataclass(frozen=True, slots=True)
class UploadOptions:
    """How an upload is synced: see `ingest.sync.sync_uploads`."""

    root: str = ""
    prune: bool = False
    yes: bool = False
    retry_failed: bool = False

    def to_dict(self) -> dict[str, str | bool]:
        return asdict(self)


class JobRunner:
    """Works through queued upload jobs from `start` to `stop`.

    `parts` gives the sync its tools when the first job needs them; `after_job` is called with the
    knowledge base of each job that ended, whatever its end, to tidy up behind it.
    """

    def __init__(
        self,
        database: Database,
        blobs: Blobs,
        parts: Callable[[], "SyncParts"],
        *,
        after_job: Callable[[KnowledgeBase], None] = lambda _base: None,
        poll_every_s: float = POLL_EVERY_S,
    ) -> None:
        self._database = database
        self._blobs = blobs
        self._parts = parts
        self._after_job = after_job
        self._poll_every_s = poll_every_s
        self._owner = new_owner()
        self._stopping = threading.Event()
        self._woken = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="jobs", daemon=True)
        self._thread.start()

    def check(self, base: KnowledgeBase) -> None:
        """Refuse files for a base that a job could not write into, before they are sent.

        Raises:
            VersionMismatchError
        """
        from ingest.sync import check_writable

        check_writable(self._parts(), base)

    def wake(self) -> None:
        """Say that a job was queued, so that it need not wait for the next look."""
        self._woken.set()

    def stop(self, timeout_s: float = STOP_TIMEOUT_S) -> bool:
        """Stop after the file at hand; a job under way goes back to the queue.

        Returns:
            Whether the worker has ended; False when its file takes longer than `timeout_s`.
        """
        self._stopping.set()
        self._woken.set()
        if self._thread is None:
            return True
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        self._safely(self._tidy)
        while not self._stopping.is_set():
            self._woken.clear()
            if not self._safely(self._work_once):
                self._woken.wait(self._poll_every_s)

    def _safely(self, step: Callable[[], bool]) -> bool:
        """Run one step of the loop; a failure (a full disk, say) is logged and met again later."""
        try:
            return step()
        except Exception:  # the queue's thread must outlive any step; the log has the traceback
            logger.exception("the upload queue stumbled; it goes on")
            return False

    def _tidy(self) -> bool:
        with self._database.write() as session:
            mark_interrupted(session)
            drop_old_jobs(session)
        self._blobs.drop_abandoned()
        return True

    def _work_once(self) -> bool:
        """Work on one job; False when there was none."""
        with self._database.write() as session:
            job = claim_upload(session, self._owner)
        if job is None:
            return False
        logger.info("job %s: %d files", job.id, len(job.files))
        self._work(job)
        return True

    def _work(self, job: Job) -> None:
        with self._database.read() as session:
            base = find_base(session, job.kb_id)
        with _Reporter(self._database, job, self._owner) as reporter:
            end = self._sync(job, base, reporter)
        with self._database.write() as session:
            if end is None:
                release_job(session, job.id, self._owner, files=reporter.last_files(None))
                return
            finish_job(
                session,
                job.id,
                self._owner,
                state=end.state,
                report=None if end.report is None else end.report.to_dict(),
                error=end.error,
                error_type=end.error_type,
                progress=reporter.last_progress(is_done=end.state == "done"),
                files=reporter.last_files(end.report),
            )
        logger.info("job %s: %s", job.id, end.state)
        with self._database.read() as session:
            is_there = any(other.id == base.id for other in list_bases(session))
        if is_there:  # else it was deleted meanwhile, and its index with it
            self._after_job(base)

    def _sync(self, job: Job, base: KnowledgeBase, reporter: "_Reporter") -> "_End | None":
        """Run the sync; None means that the server stops and the job is to be resumed."""
        # Imported here: listing jobs, as the command line does, needs no loaders.
        from ingest.scan import FoundFile
        from ingest.sync import SyncOptions, sync_uploads

        gone = [file for file in job.files if not self._blobs.path(file.blob).is_file()]
        if gone:
            return _End(
                "interrupted",
                error=f"the uploaded bytes of {len(gone)} of {len(job.files)} files are gone "
                "from the data folder; upload them again",
            )
        files = [
            FoundFile(
                path=file.path,
                location=self._blobs.path(file.blob),
                size_bytes=file.size_bytes,
                stat_key="",  # a blob's times say nothing of the user's file
                content_hash=file.blob,
            )
            for file in job.files
        ]
        upload = UploadOptions(**job.options)
        options = SyncOptions(
            prune=upload.prune,
            yes=upload.yes,
            retry_failed=upload.retry_failed,
            job_id=job.id,
            progress=reporter.take,
            is_cancelled=lambda: self._stopping.is_set() or reporter.must_stop,
        )
        try:
            report = sync_uploads(self._parts(), base, files, upload.root, options)
        except CancelledError as exc:
            if reporter.is_cancelled:
                return _End("cancelled", error=str(exc))
            return None
        except KBError as exc:
            logger.warning("job %s failed: %s", job.id, type(exc).__name__)
            return _End("failed", error=str(exc), error_type=type(exc).__name__)
        except Exception as exc:  # the boundary of a job: a bug ends this one, not the queue
            logger.exception("job %s failed by a bug", job.id)
            return _End(
                "failed",
                error=f"internal error; the server's log says more under job {job.id}",
                error_type=type(exc).__name__,
            )
        return _End("done", report=report)


@dataclass(frozen=True, slots=True)
class _End:
    """How a job ended."""

    state: JobState
    report: IngestReport | None = None
    error: str | None = None
    error_type: str | None = None


class _Reporter:
    """Carries progress from the sync's thread to the database, and a cancel the other way."""

    def __init__(self, database: Database, job: Job, owner: str) -> None:
        self.is_cancelled = False  # the user asked for it
        self.is_lost = False  # the knowledge base is gone, or another process has the job
        self._database = database
        self._job = job
        self._owner = owner
        self._lock = threading.Lock()  # guards the three below, shared with the sync's thread
        self._files = {file.path: file for file in job.files}
        self._changed: set[str] = set()
        self._progress: JobProgress | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="job-heartbeat", daemon=True)

    @property
    def must_stop(self) -> bool:
        return self.is_cancelled or self.is_lost

    def __enter__(self) -> "_Reporter":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def take(self, progress: "Progress") -> None:
        """Take one step of progress from the sync; cheap, so it may come for every file."""
        with self._lock:
            self._progress = JobProgress(
                bytes_done=progress.bytes_done,
                bytes_total=progress.bytes_total,
                files_done=progress.files_done,
                files_total=progress.files_total,
                chunks=progress.chunks,
                seconds_left=progress.seconds_left,
            )
            file = self._files.get(progress.path or "")
            if file is None:
                return
            # A resumed job finds its own earlier work unchanged; what it made of it stays said.
            if progress.state == "unchanged" and file.state in ("done", "empty"):
                return
            self._files[file.path] = replace(file, state=progress.state, error=progress.error)
            self._changed.add(file.path)

    def last_progress(self, *, is_done: bool) -> JobProgress | None:
        """Return the final numbers; a job that is done has done all, moved files included."""
        with self._lock:
            last = self._progress or self._job.progress
            if not is_done:
                return last
            return replace(
                last,
                bytes_done=last.bytes_total,
                files_done=last.files_total,
                seconds_left=None,
            )

    def last_files(self, report: IngestReport | None) -> list[JobFile]:
        """Return the files still to be written; none is left waiting once there is a report."""
        with self._lock:
            if report is not None:
                for path, file in self._files.items():
                    if file.state == "queued":  # moved here from another path: no work was needed
                        self._files[path] = replace(file, state="done")
                        self._changed.add(path)
            return [self._files[path] for path in sorted(self._changed)]

    def _run(self) -> None:
        beat_at = time.monotonic()
        while not self._ended.wait(REPORT_EVERY_S):
            with self._lock:
                progress = self._progress if self._changed else None
                changed = [self._files[path] for path in sorted(self._changed)]
                self._changed.clear()
            is_due = time.monotonic() - beat_at >= HEARTBEAT_EVERY_S
            try:
                if changed or is_due:
                    self._beat(progress, changed)
                    beat_at = time.monotonic()
                else:
                    self._look()
            except Exception:  # without this thread's heartbeat the job would look dead
                # The sync meets the same trouble (a full disk, a lock) and says it better.
                logger.exception("job %s: progress could not be stored", self._job.id)
                with self._lock:
                    self._changed.update(file.path for file in changed)

    def _beat(self, progress: JobProgress | None, changed: list[JobFile]) -> None:
        with self._database.write() as session:
            job = beat(session, self._job.id, self._owner, progress=progress, files=changed)
        self._heed(job)

    def _look(self) -> None:
        """Read without the write lock whether somebody wants the job to stop."""
        with self._database.read() as session:
            job = owned_job(session, self._job.id, self._owner)
        self._heed(job)

    def _heed(self, job: Job | None) -> None:
        if job is None:
            self.is_lost = True
        elif job.cancel_asked:
            self.is_cancelled = True
