"""Jobs: how far an upload is, live, and a way to stop it."""

from collections.abc import AsyncGenerator
from typing import Any

import anyio
from fastapi import APIRouter
from fastapi.concurrency import run_in_threadpool

from api.parts import Parts, ServerParts
from api.streaming import EventStream, sse
from kb.storage.jobs import Job, ask_cancel, find_job, retry_job

router = APIRouter(prefix="/jobs", tags=["jobs"])

LOOK_EVERY_S = 0.3
# An event holds every file of the job, so a folder drop of thousands is reported less often.
FILES_PER_S = 5000


@router.get("/{job}")
def read(job: str, parts: ServerParts) -> dict[str, Any]:
    """Return a job with its files and, once it is done, its report."""
    return _find(parts, job).to_dict()


@router.get("/{job}/events")
async def events(job: str, parts: ServerParts) -> EventStream:
    """Stream the job as `progress` events whenever it changes, then one `finished`."""
    first = await run_in_threadpool(_find, parts, job)
    return EventStream(_events(parts, first))


@router.post("/{job}/cancel")
def cancel(job: str, parts: ServerParts) -> dict[str, Any]:
    """Stop a job; what it has stored so far stays. A finished job is left as it is."""
    with parts.database.write() as session:
        asked = ask_cancel(session, job)
    if asked.is_finished:
        parts.clean_up()
    return asked.to_dict()


@router.post("/{job}/retry", status_code=202)
def retry(job: str, parts: ServerParts) -> dict[str, Any]:
    """Queue a job for the files of an upload that failed, and only those; answers with it."""
    with parts.database.write() as session:
        queued = retry_job(session, job)
    parts.jobs.wake()
    return {"job": queued.to_dict()}


def _find(parts: Parts, job_id: str) -> Job:
    with parts.database.read() as session:
        return find_job(session, job_id)


async def _events(parts: Parts, job: Job) -> AsyncGenerator[bytes]:
    # The database is looked at, not the worker: the job may be another process's.
    seen: Job | None = None
    while not job.is_finished:
        if job != seen:
            yield sse("progress", job.to_dict())
            seen = job
        await anyio.sleep(LOOK_EVERY_S + len(job.files) / FILES_PER_S)
        job = await run_in_threadpool(_find, parts, job.id)
    yield sse("finished", job.to_dict())
