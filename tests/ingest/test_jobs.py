"""The upload worker: resumes, cancels, gives reasons, and never stops for one bad job."""

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from ingest.fake import FakeEmbedder
from ingest.jobs import JobRunner, UploadOptions
from ingest.parser import ParseLimits, Parser
from kb.config import Settings
from kb.protocols import Vectors
from kb.records import KnowledgeBase
from kb.storage.documents import list_chunks, list_documents, version_text
from kb.storage.jobs import (
    HEARTBEAT_LIFETIME_S,
    Job,
    JobFile,
    ask_cancel,
    claim_upload,
    create_job,
    find_job,
    new_owner,
)
from kb.storage.tables import JobRow
from kb.wiring import Services

ROOT = Path(__file__).resolve().parents[2]


class GatedEmbedder(FakeEmbedder):
    """A fake that waits at its gate, so that a test can act in the middle of a job.

    It waits at the given call: a sync embeds 128 strings at a time, and 200 documents at most
    before it writes them.
    """

    def __init__(self, call: int = 1) -> None:
        super().__init__()
        self.gate = threading.Event()
        self.reached = threading.Event()
        self._calls_left = call

    def embed_array(self, texts: Sequence[str]) -> Vectors:
        self._calls_left -= 1
        if self._calls_left <= 0:
            self.reached.set()
            assert self.gate.wait(60), "the test left the gate closed"
        return super().embed_array(texts)


class BrokenEmbedder(FakeEmbedder):
    def embed_array(self, texts: Sequence[str]) -> Vectors:
        raise ZeroDivisionError("a bug")


@pytest.fixture(scope="module")
def parser() -> Iterator[Parser]:
    """One warm parser for all tests here: its child takes seconds to start."""
    with Parser(
        ParseLimits(
            timeout_s=30,
            memory_mb=2048,
            max_file_mb=10,
            max_pages=100,
            max_cells=1000,
            max_text_chars=1_000_000,
        )
    ) as warm:
        yield warm


@pytest.fixture
def open_services(home: Path, parser: Parser) -> Iterator[Callable[..., Services]]:
    """Open services over the test's data folder, each as a process of its own would."""
    opened: list[Services] = []

    def open_(embedder: FakeEmbedder | None = None, home: Path = home) -> Services:
        services = Services.open(Settings(home=home), embedder=embedder or FakeEmbedder())
        services.__dict__["parser"] = parser  # where the cached property keeps its own
        opened.append(services)
        return services

    yield open_
    for services in opened:
        del services.__dict__["parser"]
        services.close()


@pytest.fixture
def services(open_services: Callable[..., Services]) -> Services:
    return open_services()


@pytest.fixture
def run() -> Iterator[Callable[..., JobRunner]]:
    """Start runners over services; those still running are stopped at the end."""
    runners: list[JobRunner] = []

    def start(services: Services, **options: object) -> JobRunner:
        runner = JobRunner(
            services.database,
            services.blobs,
            lambda: services.sync_parts,
            poll_every_s=0.05,
            **options,  # type: ignore[arg-type]
        )
        runners.append(runner)
        runner.start()
        return runner

    yield start
    for runner in runners:
        assert runner.stop(), "a runner did not stop"


def documents_text(n: int, first: int = 0) -> dict[str, str]:
    """Return `n` small documents that share no chunk."""
    return {
        f"{i}.md": f"# 设备 {i}\n\n设备 {i} 的额定功率是 {i * 7} 千瓦。It weighs {i * 3} kg.\n"
        for i in range(first, first + n)
    }


def queue(services: Services, base: KnowledgeBase, files: dict[str, str], **options: object) -> str:
    """Queue an upload as the API does; returns the job's id."""
    staged, records = [], []
    for path, text in files.items():
        blob = services.blobs.stage()
        blob.write(text.encode())
        records.append(JobFile(path, blob.finish(), blob.size_bytes))
        staged.append(blob)
    services.blobs.sync(staged)
    upload = UploadOptions(**options)  # type: ignore[arg-type]
    with services.database.write() as session:
        services.blobs.adopt(staged)
        return create_job(session, base.id, "upload", options=upload.to_dict(), files=records).id


def read(services: Services, job_id: str) -> Job:
    with services.database.read() as session:
        return find_job(session, job_id)


def wait(services: Services, job_id: str, *, state: str = "", timeout_s: float = 60) -> Job:
    """Wait until a job has ended, or has reached `state`."""
    deadline = time.monotonic() + timeout_s
    while True:
        job = read(services, job_id)
        if job.state == state or (not state and job.is_finished):
            return job
        assert time.monotonic() < deadline, job
        time.sleep(0.02)


def wait_until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def contents(services: Services, base: KnowledgeBase) -> list[tuple[object, ...]]:
    """Return everything a reader can see of a base: paths, states, texts and chunk spans."""
    with services.database.read() as session:
        documents, _ = list_documents(session, base.id)
        return [
            (
                document.path,
                document.status,
                document.error,
                version_text(session, document.version_id) if document.version_id else "",
                [
                    (chunk.start, chunk.end, chunk.heading)
                    for chunk in list_chunks(session, document)
                ],
            )
            for document in documents
        ]


def test_a_queued_job_becomes_documents(services: Services, run: Callable[..., JobRunner]) -> None:
    base = services.create_base("base")
    run(services)

    job = wait(services, queue(services, base, documents_text(3)))

    assert (job.state, job.error) == ("done", None)
    assert job.report is not None
    assert job.report["added"] == 3, str(job.files)
    assert {file.state for file in job.files} == {"done"}
    assert job.progress.files_done == job.progress.files_total == 3
    assert job.progress.bytes_done == job.progress.bytes_total > 0
    assert [path for path, *_ in contents(services, base)] == ["0.md", "1.md", "2.md"]


def test_each_file_says_what_became_of_it(
    services: Services, run: Callable[..., JobRunner]
) -> None:
    base = services.create_base("base")
    run(services)
    wait(services, queue(services, base, {"same.md": "unchanged text"}))
    files = {"same.md": "unchanged text", "new.md": "新内容", "empty.txt": " \n", "bad.xyz": "x"}

    job = wait(services, queue(services, base, files))

    states = {file.path: (file.state, bool(file.error)) for file in job.files}
    assert job.state == "done"
    assert states == {
        "same.md": ("unchanged", False),
        "new.md": ("done", False),
        "empty.txt": ("empty", False),
        "bad.xyz": ("failed", True),
    }


def test_a_folder_dropped_again_is_synced(
    services: Services, run: Callable[..., JobRunner]
) -> None:
    base = services.create_base("base")
    run(services)
    other = {"elsewhere/keep.md": "Not part of the folder."}
    wait(services, queue(services, base, other))
    first = {f"docs/{path}": text for path, text in documents_text(6).items()}
    wait(services, queue(services, base, first, root="docs", prune=True))
    second = dict(first)
    del second["docs/0.md"]
    second["docs/moved.md"] = second.pop("docs/1.md")
    second["docs/2.md"] = "Something else entirely."

    job = wait(services, queue(services, base, second, root="docs", prune=True))

    assert job.report is not None
    assert {key: job.report[key] for key in ("added", "changed", "moved", "removed")} == {
        "added": 0, "changed": 1, "moved": 1, "removed": 1,
    }  # fmt: skip
    assert {file.path: file.state for file in job.files}["docs/moved.md"] == "done"
    paths = [path for path, *_ in contents(services, base)]
    assert paths == [f"docs/{i}.md" for i in (2, 3, 4, 5)] + ["docs/moved.md", *other]


def test_removing_more_than_half_asks_first(
    services: Services, run: Callable[..., JobRunner]
) -> None:
    base = services.create_base("base")
    run(services)
    files = {f"docs/{path}": text for path, text in documents_text(5).items()}
    wait(services, queue(services, base, files, root="docs", prune=True))
    one = {"docs/0.md": files["docs/0.md"]}

    asked = wait(services, queue(services, base, one, root="docs", prune=True))
    before = len(contents(services, base))
    confirmed = wait(services, queue(services, base, one, root="docs", prune=True, yes=True))

    assert (asked.state, asked.error_type) == ("failed", "ConfirmationNeededError")
    assert "4 of 5" in (asked.error or "")
    assert before == 5
    assert confirmed.state == "done"
    assert len(contents(services, base)) == 1


def test_a_bug_in_one_job_is_its_own_and_the_queue_goes_on(
    open_services: Callable[..., Services],
    run: Callable[..., JobRunner],
    caplog: pytest.LogCaptureFixture,
) -> None:
    services, broken = open_services(), open_services(BrokenEmbedder())
    base = services.create_base("base")
    bad = queue(services, base, documents_text(1))
    runner = run(broken)
    failed = wait(services, bad)
    runner.stop()

    run(services)
    good = wait(services, queue(services, base, documents_text(1, first=1)))

    assert (failed.state, failed.error_type) == ("failed", "ZeroDivisionError")
    assert "a bug" not in (failed.error or "")
    assert failed.id in caplog.text
    assert good.state == "done"


def test_the_queue_goes_on_after_tidying_up_failed(
    services: Services, run: Callable[..., JobRunner], caplog: pytest.LogCaptureFixture
) -> None:
    base = services.create_base("base")

    def after_job(_base: KnowledgeBase) -> None:
        raise OSError("cannot tidy")

    run(services, after_job=after_job)
    first = wait(services, queue(services, base, documents_text(1)))
    second = wait(services, queue(services, base, documents_text(1, first=1)))

    assert (first.state, second.state) == ("done", "done")
    assert "cannot tidy" in caplog.text


def test_a_running_job_can_be_cancelled(
    open_services: Callable[..., Services], run: Callable[..., JobRunner]
) -> None:
    embedder = GatedEmbedder()
    services = open_services(embedder)
    base = services.create_base("base")
    run(services)
    job_id = queue(services, base, documents_text(130))
    assert embedder.reached.wait(60)

    with services.database.write() as session:
        ask_cancel(session, job_id)
    time.sleep(1)  # two looks of the worker
    embedder.gate.set()
    job = wait(services, job_id)

    assert job.state == "cancelled"
    assert job.report is None
    assert "cancelled" in (job.error or "")


@pytest.mark.slow
def test_stopping_leaves_a_running_job_to_be_resumed_with_the_same_result(
    open_services: Callable[..., Services], run: Callable[..., JobRunner], tmp_path: Path
) -> None:
    embedder = GatedEmbedder(call=2)  # just before the first 200 documents are written
    first = open_services(embedder)
    base = first.create_base("base")
    files = documents_text(203)
    runner = run(first)
    job_id = queue(first, base, files)
    assert embedder.reached.wait(60)
    stopped = threading.Thread(target=runner.stop)
    stopped.start()
    embedder.gate.set()
    stopped.join()
    left = read(first, job_id)
    n_before = len(contents(first, base))

    second = open_services()
    run(second)
    job = wait(second, job_id)

    assert left.state == "queued"
    assert n_before == 200
    assert job.state == "done"
    assert {file.state for file in job.files} == {"done"}
    whole = open_services(home=tmp_path / "other")
    undisturbed = whole.create_base("base")
    run(whole)
    wait(whole, queue(whole, undisturbed, files))
    assert contents(second, base) == contents(whole, undisturbed)


def test_a_job_of_a_killed_server_is_resumed_when_its_heartbeat_is_old(
    services: Services, run: Callable[..., JobRunner]
) -> None:
    base = services.create_base("base")
    job_id = queue(services, base, documents_text(2))
    with services.database.write() as session:
        claim_upload(session, new_owner())
    runner = run(services)
    time.sleep(0.5)
    too_early = read(services, job_id)

    with services.database.write() as session:
        session.get_one(JobRow, job_id).heartbeat_at -= HEARTBEAT_LIFETIME_S + 1
    job = wait(services, job_id)

    assert too_early.state == "running"
    assert job.state == "done"
    assert runner.stop()


KILLED_SERVER = """
import sys, time
from pathlib import Path
from ingest.fake import FakeEmbedder
from ingest.jobs import JobRunner
from kb.config import Settings
from kb.failpoints import arm
from kb.wiring import Services

arm("sync.writing", 12)
services = Services.open(Settings(home=Path(sys.argv[1])), embedder=FakeEmbedder())
JobRunner(services.database, services.blobs, lambda: services.sync_parts).start()
time.sleep(100)
"""


@pytest.mark.slow
def test_a_server_killed_while_it_writes_loses_nothing(
    services: Services, run: Callable[..., JobRunner]
) -> None:
    base = services.create_base("base")
    files = documents_text(30)
    job_id = queue(services, base, files)

    killed = subprocess.run(
        [sys.executable, "-c", KILLED_SERVER, str(services.settings.home)],
        cwd=ROOT,
        timeout=120,
        check=False,
    )
    n_before = len(contents(services, base))
    with services.database.write() as session:
        session.get_one(JobRow, job_id).heartbeat_at -= HEARTBEAT_LIFETIME_S + 1
    run(services)
    job = wait(services, job_id)

    assert killed.returncode == 137
    assert n_before == 12
    assert job.state == "done"
    assert len(contents(services, base)) == 30
    assert {file.state for file in job.files} <= {"done", "unchanged"}


def test_a_job_whose_bytes_are_gone_says_so(
    services: Services, run: Callable[..., JobRunner]
) -> None:
    base = services.create_base("base")
    job_id = queue(services, base, documents_text(2))
    services.blobs.path(read(services, job_id).files[0].blob).unlink()

    run(services)
    job = wait(services, job_id)

    assert job.state == "interrupted"
    assert "1 of 2" in (job.error or "")
    assert contents(services, base) == []


def test_deleting_the_knowledge_base_ends_its_job(
    open_services: Callable[..., Services],
    run: Callable[..., JobRunner],
    caplog: pytest.LogCaptureFixture,
) -> None:
    embedder = GatedEmbedder()
    services = open_services(embedder)
    doomed, other = services.create_base("doomed"), services.create_base("other")
    tidied: list[str] = []
    run(services, after_job=lambda base: tidied.append(base.name))
    queue(services, doomed, documents_text(20))
    assert embedder.reached.wait(60)

    services.delete_base(doomed)
    embedder.gate.set()
    job = wait(services, queue(services, other, documents_text(1)))
    wait_until(lambda: bool(tidied))

    assert job.state == "done"
    assert tidied == ["other"]
    assert "stumbled" not in caplog.text


def test_two_servers_share_a_queue(
    open_services: Callable[..., Services], run: Callable[..., JobRunner]
) -> None:
    one, two = open_services(), open_services()
    base = one.create_base("base")
    ids = [queue(one, base, documents_text(2, first=10 * i)) for i in range(6)]

    run(one)
    run(two)
    states = [wait(one, job_id).state for job_id in ids]

    assert states == ["done"] * 6
    assert len(contents(one, base)) == 12


def test_a_runner_that_never_started_stops(services: Services) -> None:
    runner = JobRunner(services.database, services.blobs, lambda: services.sync_parts)

    assert runner.stop()
