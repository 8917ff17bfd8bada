"""`kb ingest --watch` as a process of its own: reports, signals, vanished disks, two at once."""

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ingest.splitter import SPLITTER
from kb.storage.bases import find_base
from kb.storage.documents import list_documents
from kb.storage.jobs import list_jobs
from kb.upkeep.verify import verify
from tests.building import open_services

pytestmark = pytest.mark.slow

COMMAND = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored by a test run in the background
from pathlib import Path
from ingest import watch
from kb.cli.edge import Edge
from kb.cli.main import run
from tests.building import open_services
watch.QUIET_MS, watch.LOOK_MS = 200, 200
sys.exit(run(["ingest", *sys.argv[2:], "--watch"], Edge({}, open_services(Path(sys.argv[1])))))
"""


class Watcher:
    """A watching process; its output goes to files, so that it never waits for a reader."""

    def __init__(self, folder: Path, home: Path, *arguments: str) -> None:
        folder.mkdir()
        self._out, self._err = folder / "out", folder / "err"
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.process = subprocess.Popen(
                [sys.executable, "-c", COMMAND, str(home), *arguments], stdout=out, stderr=err
            )

    @property
    def reports(self) -> list[dict[str, Any]]:
        lines = self._out.read_text(encoding="utf-8").splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.endswith("\n")]

    @property
    def err(self) -> str:
        return self._err.read_text(encoding="utf-8")

    def end(self, how: signal.Signals) -> int:
        self.process.send_signal(how)
        return self.process.wait(60)


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    folder = tmp_path / "docs"
    folder.mkdir()
    for n in range(3):
        (folder / f"{n}.txt").write_text(f"第{n}台设备每 {n} 天检查一次。", encoding="utf-8")
    return folder


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Watcher]]:
    started: list[Watcher] = []

    def start_one(*arguments: str) -> Watcher:
        started.append(Watcher(tmp_path / f"w{len(started)}", tmp_path / "home", *arguments))
        return started[-1]

    yield start_one
    for watcher in started:
        watcher.process.kill()
        watcher.process.wait()


def _wait(watcher: Watcher, condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 120
    while not condition():
        assert watcher.process.poll() is None, watcher.err
        assert time.monotonic() < end, watcher.err
        time.sleep(0.05)


def test_changes_are_reported_line_by_line_and_ctrl_c_ends_it(
    start: Callable[..., Watcher], docs: Path, tmp_path: Path
) -> None:
    watcher = start(str(docs), "--json")
    _wait(watcher, lambda: len(watcher.reports) == 1)
    (docs / "new.txt").write_text("新的文件")
    _wait(watcher, lambda: any(report["added"] == 1 for report in watcher.reports))
    (docs / "new.txt").rename(docs / "moved.txt")
    _wait(watcher, lambda: any(report["moved"] == 1 for report in watcher.reports))

    code = watcher.end(signal.SIGINT)

    assert code == 130
    assert watcher.reports[0]["added"] == 3
    with open_services(tmp_path / "home") as services, services.database.read() as session:
        base = find_base(session, "default")
        assert {job.state for job in list_jobs(session, base.id)} == {"done"}


def test_a_vanished_root_keeps_its_documents_is_told_and_comes_back(
    start: Callable[..., Watcher], docs: Path, tmp_path: Path
) -> None:
    watcher = start(str(docs), "--json", "--yes")
    _wait(watcher, lambda: len(watcher.reports) == 1)
    docs.rename(tmp_path / "unmounted")
    _wait(watcher, lambda: "is missing" in watcher.err)
    docs.mkdir()  # a mount point without its disk
    _wait(watcher, lambda: "left out" in watcher.err)
    docs.rmdir()
    (tmp_path / "unmounted").rename(docs)
    (docs / "0.txt").unlink()
    _wait(watcher, lambda: any(report["removed"] == 1 for report in watcher.reports))

    code = watcher.end(signal.SIGTERM)

    assert code == 0
    assert sum(report["removed"] for report in watcher.reports) == 1


def test_two_that_watch_the_same_folder_do_not_hurt_each_other(
    start: Callable[..., Watcher], docs: Path, tmp_path: Path
) -> None:
    watchers = [start(str(docs), "--json") for _ in range(2)]
    for watcher in watchers:
        _wait(watcher, lambda w=watcher: bool(w.reports))  # type: ignore[misc]
    for n in range(40):
        (docs / f"x{n}.txt").write_text(f"设备 {n} " * 200, encoding="utf-8")
    shutil.copytree(docs, docs / "copy")
    (docs / "0.txt").unlink()
    for watcher in watchers:
        _wait(watcher, lambda w=watcher: _is_level(w, docs, tmp_path / "home"))  # type: ignore[misc]

    assert [watcher.end(signal.SIGTERM) for watcher in watchers] == [0, 0]

    with open_services(tmp_path / "home") as services:
        report = verify(services.database, services.retriever, services.blobs, splitter=SPLITTER)
    assert report.problems == ()
    assert report.documents == 85


def _is_level(watcher: Watcher, docs: Path, home: Path) -> bool:
    with open_services(home) as services, services.database.read() as session:
        found, _ = list_documents(session, find_base(session, "default").id)
    there = {path.relative_to(docs).as_posix() for path in docs.rglob("*.txt")}
    return {document.path for document in found} == there
