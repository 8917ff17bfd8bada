"""Several processes on one data folder: two ingest into one base while a third searches."""

import subprocess
import sys
from pathlib import Path

import pytest

from ingest.splitter import SPLITTER
from kb.records import Question
from kb.storage.bases import find_base
from kb.storage.documents import list_documents
from kb.upkeep.verify import verify
from tests.building import open_services

INGEST = """
import sys
from pathlib import Path
from ingest.sync import SyncOptions
from kb.cli.ingest import run_sync
from tests.building import open_services
with open_services(Path(sys.argv[1])) as services:
    report = run_sync(services, "shared", [Path(sys.argv[2])], SyncOptions())
    print(report.added, len(report.failed))
"""

SEARCH = """
import sys, time
from pathlib import Path
from kb.records import Question
from tests.building import open_services
with open_services(Path(sys.argv[1])) as services:
    end, n_hits = time.monotonic() + float(sys.argv[2]), 0
    while time.monotonic() < end:
        for hit in services.retriever.search(Question("检查 pump 设备", ("shared",), 5)).hits:
            assert hit.chunk.text
            n_hits += 1
    print(n_hits)
"""


def _start(script: str, *arguments: object) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
def test_two_ingest_while_a_third_searches_and_nothing_is_lost(tmp_path: Path) -> None:
    home = tmp_path / "home"
    folders = [tmp_path / "first", tmp_path / "second"]
    for folder in folders:
        folder.mkdir()
        for n in range(60):
            text = f"{folder.name} 设备 {n} 每 {n} 天检查一次。The pump {n * 31} is old.\n\n" * 30
            (folder / f"{n}.txt").write_text(text, encoding="utf-8")
    with open_services(home) as services:
        services.create_base("shared")

    searcher = _start(SEARCH, home, 8)
    writers = [_start(INGEST, home, folder) for folder in folders]

    for writer in writers:
        out, err = writer.communicate(timeout=120)
        assert writer.returncode == 0, err
        assert out.split() == ["60", "0"]
    out, err = searcher.communicate(timeout=120)
    assert searcher.returncode == 0, err
    with open_services(home) as services:
        with services.database.read() as session:
            _, total = list_documents(session, find_base(session, "shared").id)
        report = verify(services.database, services.retriever, services.blobs, splitter=SPLITTER)
        hits = services.retriever.search(Question("设备 59", ("shared",), 5)).hits
    assert total == 120
    assert report.problems == ()
    assert len(hits) == 5
