"""Reading ahead: every file once, slow ones beside the others, stopped within a moment."""

import os
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from ingest.parser import Parser
from ingest.read_ahead import read_ahead
from ingest.scan import FoundFile
from kb.errors import CancelledError, CorruptFileError, LimitExceededError, LoadError
from kb.records import LoadedDocument
from tests.ingest.files_samples import LIMITS


def found(path: Path) -> FoundFile:
    return FoundFile(path=path.name, location=path, size_bytes=1, stat_key="", content_hash=None)


def slow_file(folder: Path) -> Path:
    """Write a file that takes seconds to parse."""
    path = folder / "slow.csv"
    path.write_text("a,b,c,d\n" + "1,2,3,4\n" * 2_000_000)
    return path


def test_every_file_comes_once_with_its_document_or_its_reason(tmp_path: Path) -> None:
    for n in range(30):
        (tmp_path / f"{n}.txt").write_text(f"第 {n} 份")
    (tmp_path / "bad.pdf").write_bytes(b"%PDF-1.4 broken")
    files = [found(path) for path in tmp_path.iterdir()] + [found(tmp_path / "gone.txt")]

    with Parser(LIMITS, processes=2) as parser:
        read = {file.path: result for file, result in read_ahead(parser, files, lambda: False)}

    assert len(read) == len(files)
    for n in range(30):
        document = read[f"{n}.txt"]
        assert isinstance(document, LoadedDocument)
        assert document.text == f"第 {n} 份"
    assert isinstance(read["bad.pdf"], CorruptFileError)
    assert isinstance(read["gone.txt"], LoadError)


def test_a_stuck_file_does_not_hold_up_the_others(tmp_path: Path) -> None:
    files = [found(slow_file(tmp_path))]
    for n in range(20):
        (tmp_path / f"{n}.txt").write_text("好")
        files.append(found(tmp_path / f"{n}.txt"))

    limits = replace(LIMITS, timeout_s=2.0, max_cells=10**9, max_text_chars=10**9)
    with Parser(limits, processes=2) as parser:
        order = list(read_ahead(parser, files, lambda: False))

    assert order[-1][0].path == "slow.csv"
    assert isinstance(order[-1][1], LimitExceededError)


def test_cancelling_stops_in_the_middle_of_a_file(tmp_path: Path) -> None:
    cancelled = threading.Event()
    threading.Timer(0.5, cancelled.set).start()
    files = [found(slow_file(tmp_path))]
    limits = replace(LIMITS, timeout_s=600, max_cells=10**9, max_text_chars=10**9)

    with Parser(limits, processes=1) as parser:
        with pytest.raises(CancelledError):
            list(read_ahead(parser, files, cancelled.is_set))

        (tmp_path / "next.txt").write_text("好")
        assert parser.load(tmp_path / "next.txt", "next.txt").text == "好"


def test_as_many_files_are_parsed_at_once_as_there_are_processes(tmp_path: Path) -> None:
    files = []
    for n in range(2):
        path = tmp_path / f"{n}.csv"
        path.write_text("a,b,c,d\n" + "1,2,3,4\n" * 100_000)
        files.append(found(path))
    others, seen = _children(os.getpid()), 0
    with Parser(replace(LIMITS, max_cells=10**9), processes=2) as parser:
        reading = read_ahead(parser, files, lambda: False)
        thread = threading.Thread(target=lambda: list(reading))
        thread.start()
        deadline = time.monotonic() + 30
        while thread.is_alive() and time.monotonic() < deadline:
            seen = max(seen, _children(os.getpid()) - others)
        thread.join()

    assert seen == 2


def _children(pid: int) -> int:
    import psutil

    return sum(
        "ingest.parser_child" in process.cmdline()
        for process in psutil.Process(pid).children()
        if process.status() != psutil.STATUS_ZOMBIE
    )
