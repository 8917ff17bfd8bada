"""The job table: who may claim, report, cancel and finish, and when an owner counts as dead."""

import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ingest.fake import FakeEmbedder
from kb.config import Settings
from kb.errors import JobNotFoundError
from kb.storage.bases import find_base
from kb.storage.database import Database
from kb.storage.jobs import (
    HEARTBEAT_LIFETIME_S,
    JOB_LIFETIME_DAYS,
    Job,
    JobFile,
    JobKind,
    JobProgress,
    ask_cancel,
    beat,
    claim_upload,
    count_jobs,
    create_job,
    drop_old_jobs,
    find_job,
    finish_job,
    is_any_job_live,
    list_jobs,
    mark_interrupted,
    new_owner,
    owned_job,
    release_job,
)
from kb.wiring import Services

LATER = HEARTBEAT_LIFETIME_S + 1
FILES = (JobFile("b.txt", "1" * 64, 20), JobFile("a.txt", "0" * 64, 10))


@pytest.fixture
def services(home: Path) -> Iterator[Services]:
    with Services.open(Settings(home=home), embedder=FakeEmbedder()) as opened:
        yield opened


@pytest.fixture
def database(services: Services) -> Database:
    return services.database


@pytest.fixture
def kb_id(services: Services) -> str:
    return services.create_base("base").id


def new_job(database: Database, kb_id: str, kind: JobKind = "upload", owner: str = "") -> Job:
    with database.write() as session:
        return create_job(session, kb_id, kind, files=FILES, owner=owner)


def claim(database: Database, owner: str, *, after_s: float = 0) -> Job | None:
    with database.write() as session:
        return claim_upload(session, owner, now=time.time() + after_s)


def read(database: Database, job_id: str) -> Job:
    with database.read() as session:
        return find_job(session, job_id)


def test_a_new_job_waits_and_knows_its_size(database: Database, kb_id: str) -> None:
    job = read(database, new_job(database, kb_id).id)

    assert job.state == "queued"
    assert job.progress == JobProgress(bytes_total=30, files_total=2)
    assert [file.path for file in job.files] == ["a.txt", "b.txt"]
    assert not job.is_finished


def test_the_json_of_a_job_names_no_blob(database: Database, kb_id: str) -> None:
    shown = read(database, new_job(database, kb_id).id).to_dict()

    assert shown["files"][0] == {"path": "a.txt", "state": "queued", "error": None}
    assert "0" * 64 not in str(shown)
    assert shown["report"] is None
    assert shown["error"] is None


def test_the_oldest_job_is_claimed_first_and_only_once(database: Database, kb_id: str) -> None:
    first, second = new_job(database, kb_id), new_job(database, kb_id)

    claimed = [claim(database, owner) for owner in ("one", "two", "three")]

    assert [job and job.id for job in claimed] == [first.id, second.id, None]
    assert read(database, first.id).owner == "one"


def test_many_claimers_never_share_a_job(database: Database, kb_id: str) -> None:
    ids = {new_job(database, kb_id).id for _ in range(8)}
    claimed: list[str] = []

    def work() -> None:
        while (job := claim(database, new_owner())) is not None:
            claimed.append(job.id)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(claimed) == sorted(ids)


def test_an_ingest_of_the_command_line_is_never_claimed(database: Database, kb_id: str) -> None:
    new_job(database, kb_id, "ingest", owner="shell")

    assert claim(database, "server", after_s=LATER) is None


def test_a_silent_owner_loses_its_upload_job(database: Database, kb_id: str) -> None:
    job = new_job(database, kb_id)
    claim(database, "dead")

    too_early = claim(database, "heir", after_s=HEARTBEAT_LIFETIME_S - 1)
    in_time = claim(database, "heir", after_s=LATER)

    assert too_early is None
    assert in_time is not None
    assert in_time.id == job.id
    assert read(database, job.id).owner == "heir"


def test_a_heartbeat_keeps_a_job_and_stores_progress(database: Database, kb_id: str) -> None:
    job = new_job(database, kb_id)
    claim(database, "me")
    progress = JobProgress(bytes_done=10, bytes_total=30, files_done=1, files_total=2, chunks=4)
    failed = JobFile("a.txt", "0" * 64, 10, state="failed", error="broken")

    with database.write() as session:
        beat(session, job.id, "me", progress=progress, files=[failed], now=time.time() + LATER)

    stored = read(database, job.id)
    assert stored.progress == progress
    assert stored.files == (failed, FILES[0])
    assert claim(database, "thief", after_s=LATER) is None


def test_a_former_owner_can_neither_report_nor_finish(database: Database, kb_id: str) -> None:
    job = new_job(database, kb_id)
    claim(database, "slow")
    claim(database, "heir", after_s=LATER)

    with database.write() as session:
        told = beat(session, job.id, "slow", progress=JobProgress(chunks=99))
        finish_job(session, job.id, "slow", state="failed", error="late")
        release_job(session, job.id, "slow")

    stored = read(database, job.id)
    assert told is None
    assert (stored.state, stored.owner, stored.progress.chunks) == ("running", "heir", 0)


def test_a_released_job_is_claimed_at_once(database: Database, kb_id: str) -> None:
    job = new_job(database, kb_id)
    claim(database, "stopping")

    with database.write() as session:
        release_job(session, job.id, "stopping")
    claimed = claim(database, "next")

    assert claimed is not None
    assert claimed.id == job.id


def test_a_finished_job_keeps_its_report_and_reason(database: Database, kb_id: str) -> None:
    job = new_job(database, kb_id, owner="me")

    with database.write() as session:
        finish_job(
            session, job.id, "me", state="failed", error="say yes", error_type="SomeError",
            report={"added": 1},
        )  # fmt: skip

    stored = read(database, job.id)
    assert stored.is_finished
    assert stored.to_dict()["error"] == "say yes"
    assert stored.to_dict()["error_type"] == "SomeError"
    assert stored.to_dict()["report"] == {"added": 1}
    assert dict(stored.options) == {}
    assert claim(database, "other", after_s=LATER) is None


def test_a_waiting_job_is_cancelled_at_once(database: Database, kb_id: str) -> None:
    job = new_job(database, kb_id)

    with database.write() as session:
        asked = ask_cancel(session, job.id)

    assert asked.state == "cancelled"
    assert claim(database, "me") is None


def test_a_running_job_is_told_to_stop(database: Database, kb_id: str) -> None:
    job = new_job(database, kb_id)
    claim(database, "me")

    with database.write() as session:
        asked = ask_cancel(session, job.id)
        told = beat(session, job.id, "me")
        looked = owned_job(session, job.id, "me")

    assert asked.state == "running"
    assert told is not None
    assert told.cancel_asked
    assert looked is not None
    assert looked.cancel_asked


def test_a_job_whose_owner_died_is_cancelled_at_once(database: Database, kb_id: str) -> None:
    job = new_job(database, kb_id)
    claim(database, "dead")

    with database.write() as session:
        asked = ask_cancel(session, job.id, now=time.time() + LATER)

    assert asked.state == "cancelled"


def test_cancelling_a_finished_job_changes_nothing(database: Database, kb_id: str) -> None:
    job = new_job(database, kb_id, owner="me")
    with database.write() as session:
        finish_job(session, job.id, "me", state="done")

    with database.write() as session:
        asked = ask_cancel(session, job.id)

    assert asked.state == "done"
    assert asked.error is None


@pytest.mark.parametrize("job_id", ["", "0" * 32, "../x", "\0", "年假", "x" * 10_000])
def test_an_unknown_job_is_not_found(database: Database, job_id: str) -> None:
    with database.write() as session:
        with pytest.raises(JobNotFoundError):
            find_job(session, job_id)
        with pytest.raises(JobNotFoundError):
            ask_cancel(session, job_id)


def test_a_job_goes_with_its_knowledge_base(services: Services, kb_id: str) -> None:
    job = new_job(services.database, kb_id)
    claim(services.database, "me")
    with services.database.read() as session:
        base = find_base(session, kb_id)

    services.delete_base(base)

    with services.database.write() as session:
        assert beat(session, job.id, "me") is None
        with pytest.raises(JobNotFoundError):
            find_job(session, job.id)


@pytest.mark.parametrize(
    ("kind", "owner", "after_s", "is_live"),
    [
        ("upload", "", 0, True),
        ("upload", "me", 0, True),
        ("upload", "me", LATER, True),  # a server will resume it
        ("ingest", "me", 0, True),
        ("ingest", "me", LATER, False),  # nobody may ever run it again
    ],
)
def test_which_jobs_are_live(
    database: Database, kb_id: str, kind: JobKind, owner: str, after_s: float, is_live: bool
) -> None:
    job = new_job(database, kb_id, kind, owner=owner)

    with database.read() as session:
        assert is_any_job_live(session, now=time.time() + after_s) is is_live
        assert not is_any_job_live(session, except_job=job.id, now=time.time() + after_s)


def test_a_dead_ingest_is_marked_and_a_dead_upload_is_not(database: Database, kb_id: str) -> None:
    ingest = new_job(database, kb_id, "ingest", owner="shell")
    upload = new_job(database, kb_id, "upload", owner="server")

    with database.write() as session:
        n_early = mark_interrupted(session)
        n_late = mark_interrupted(session, now=time.time() + LATER)

    assert (n_early, n_late) == (0, 1)
    assert read(database, ingest.id).state == "interrupted"
    assert "kb ingest" in (read(database, ingest.id).error or "")
    assert read(database, upload.id).state == "running"


def test_jobs_that_ended_long_ago_are_forgotten(database: Database, kb_id: str) -> None:
    ended, waiting = new_job(database, kb_id, owner="me"), new_job(database, kb_id)
    with database.write() as session:
        finish_job(session, ended.id, "me", state="done")
    in_a_week = datetime.now(UTC) + timedelta(days=JOB_LIFETIME_DAYS, minutes=1)

    with database.write() as session:
        n_now = drop_old_jobs(session)
        n_later = drop_old_jobs(session, now=in_a_week)

    assert (n_now, n_later) == (0, 1)
    with database.read() as session:
        assert [job.id for job in list_jobs(session)] == [waiting.id]
        assert len(find_job(session, waiting.id).files) == 2


def test_jobs_are_listed_oldest_first_and_counted(
    services: Services, database: Database, kb_id: str
) -> None:
    first, second = new_job(database, kb_id), new_job(database, kb_id)
    other = new_job(database, services.create_base("other").id)
    claim(database, "me")

    with database.read() as session:
        assert [job.id for job in list_jobs(session, kb_id)] == [first.id, second.id]
        assert [job.id for job in list_jobs(session, states=["queued"])] == [second.id, other.id]
        assert count_jobs(session) == {"queued": 2, "running": 1}
