"""The parser's child: kept warm, limited, replaced, and without anything it does not need."""

import hashlib
import io
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from ingest.parser import ParseLimits, Parser
from ingest.parser_child import read_message
from ingest.parser_process import ParserProcess
from kb.errors import (
    CancelledError,
    CorruptFileError,
    LimitExceededError,
    LoadError,
    UndecodableTextError,
    UnsupportedFormatError,
)
from kb.records import Heading
from tests.ingest.files_samples import LIMITS

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def parser() -> Iterator[Parser]:
    with Parser(LIMITS) as opened:
        yield opened


def child_of(pid: int) -> psutil.Process:
    """Return the parser's child among the processes started by `pid`."""
    children = [
        process
        for process in psutil.Process(pid).children()
        if process.status() != psutil.STATUS_ZOMBIE and "ingest.parser_child" in process.cmdline()
    ]
    return children[-1]


def wait_until_gone(process: psutil.Process) -> bool:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        if not process.is_running() or process.status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.05)
    return False


def test_a_file_comes_back_as_text_with_its_hash(parser: Parser, tmp_path: Path) -> None:
    data = "# 手册\r\n\r\n年假十天。😀\r\n".encode()
    path = tmp_path / "blob"  # uploads are stored without an extension
    path.write_bytes(data)

    loaded = parser.load(path, "资料/手册.MD")

    assert loaded.text == "# 手册\n\n年假十天。😀\n"
    assert loaded.headings == (Heading(0, 1, "手册"),)
    assert (loaded.pages, loaded.encoding, loaded.encoding_guessed) == ((), "utf-8", False)
    assert loaded.loader == "markdown/2"
    assert loaded.content_hash == hashlib.sha256(data).hexdigest()
    assert loaded.size_bytes == len(data)


def test_the_child_is_kept_for_the_next_file(parser: Parser, tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("一")

    parser.load(path, "a.txt")
    first = child_of(os.getpid())
    parser.load(path, "a.txt")

    assert child_of(os.getpid()) == first


def test_a_bad_file_is_a_reason_and_harms_nothing(parser: Parser, tmp_path: Path) -> None:
    bad, good = tmp_path / "bad.txt", tmp_path / "good.txt"
    bad.write_bytes(bytes(range(256)) * 20)
    good.write_text("好")

    with pytest.raises(UndecodableTextError, match="binary data"):
        parser.load(bad, bad.name)
    with pytest.raises(UnsupportedFormatError, match=r"\.xyz"):
        parser.load(good, "good.xyz")

    assert parser.load(good, good.name).text == "好"


@pytest.mark.parametrize(
    "name", ["../../etc/passwd.txt", "C:\\a.txt", "名字😀.txt", "x" * 300 + ".txt", "a\0b.txt"]
)
def test_a_name_is_never_a_path(parser: Parser, tmp_path: Path, name: str) -> None:
    path = tmp_path / "blob"
    path.write_text("内容")

    assert parser.load(path, name).text == "内容"


def test_a_path_that_is_not_utf8_is_opened(parser: Parser, tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xc4\xe3.txt"))
    path.write_text("内容")

    assert parser.load(path, "你.txt").text == "内容"


def test_what_cannot_be_opened_says_why(parser: Parser, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo.txt"
    os.mkfifo(fifo)

    with pytest.raises(LoadError, match="No such file"):
        parser.load(tmp_path / "gone.txt", "gone.txt")
    with pytest.raises(LoadError, match="no regular file"):
        parser.load(fifo, fifo.name)
    with pytest.raises(LoadError, match="cannot be read"):
        parser.load(tmp_path, "folder.txt")


def test_a_file_that_takes_too_long_is_given_up_and_the_next_one_is_read(tmp_path: Path) -> None:
    slow, quick = tmp_path / "slow.csv", tmp_path / "quick.txt"
    slow.write_text("a,b,c,d\n" + "1,2,3,4\n" * 2_000_000)
    quick.write_text("好")

    limits = replace(LIMITS, timeout_s=0.5, max_cells=10**9)
    with Parser(limits) as parser:
        with pytest.raises(LimitExceededError, match=r"longer than 0\.5 seconds"):
            parser.load(slow, slow.name)
        assert parser.load(quick, quick.name).text == "好"


def test_a_file_that_needs_too_much_memory_is_given_up(tmp_path: Path) -> None:
    large, small = tmp_path / "large.csv", tmp_path / "small.txt"
    large.write_text("a,b,c,d\n" + "12345,23456,34567,45678\n" * 1_500_000)
    small.write_text("好")

    limits = replace(LIMITS, memory_mb=256, max_cells=10**9, max_text_chars=10**9)
    with Parser(limits) as parser:
        with pytest.raises(LimitExceededError, match="more than 256 MB of memory"):
            parser.load(large, large.name)
        assert parser.load(small, small.name).text == "好"


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        (replace(LIMITS, max_file_mb=1), "larger than 1 MB"),
        (replace(LIMITS, max_cells=1000), "1,000 table cells"),
        (replace(LIMITS, max_text_chars=1000, max_cells=10**6), "1,000 characters"),
    ],
)
def test_limits_reach_the_child(tmp_path: Path, limits: ParseLimits, reason: str) -> None:
    path = tmp_path / "a.csv"
    path.write_text("甲,乙\n" * 200_000)

    with Parser(limits) as parser, pytest.raises(LimitExceededError, match=reason):
        parser.load(path, path.name)


def test_a_child_killed_between_files_is_replaced(parser: Parser, tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("一")
    parser.load(path, path.name)
    first = child_of(os.getpid())

    first.kill()

    assert parser.load(path, path.name).text == "一"
    assert child_of(os.getpid()) != first


def test_a_crash_in_the_middle_of_a_file_is_that_files_failure(tmp_path: Path) -> None:
    large, small = tmp_path / "large.csv", tmp_path / "small.csv"
    large.write_text("a,b,c,d\n" + "1,2,3,4\n" * 1_000_000)
    small.write_text("甲,乙\n1,2\n")
    limits = replace(LIMITS, max_cells=10**9, max_text_chars=10**9)
    with Parser(limits) as parser:
        parser.load(small, small.name)
        child = child_of(os.getpid())
        killer = threading.Timer(0.3, lambda: child.send_signal(signal.SIGSEGV))
        killer.start()

        with pytest.raises(CorruptFileError, match="made the parser crash"):
            parser.load(large, large.name)

        killer.join()
        assert parser.load(small, small.name).text == "甲: 乙\n甲: 1; 乙: 2".replace(
            "甲: 乙", "甲 | 乙"
        )


def test_closing_does_not_wait_for_a_slow_file_nor_call_it_bad(tmp_path: Path) -> None:
    large, small = tmp_path / "large.csv", tmp_path / "small.csv"
    large.write_text("a,b,c,d\n" + "1,2,3,4\n" * 1_000_000)
    small.write_text("甲,乙\n1,2\n")
    parser = Parser(replace(LIMITS, max_cells=10**9, max_text_chars=10**9))
    parser.load(small, small.name)
    closer = threading.Timer(0.3, parser.close)
    closer.start()

    with pytest.raises(CancelledError):
        parser.load(large, large.name)

    closer.join()
    parser.close()


def test_threads_may_share_a_parser(parser: Parser, tmp_path: Path) -> None:
    texts = {number: f"第{number}份" * 1000 for number in range(8)}
    found: dict[int, str] = {}

    def load(number: int) -> None:
        path = tmp_path / f"{number}.txt"
        path.write_text(texts[number])
        found[number] = parser.load(path, path.name).text

    threads = [threading.Thread(target=load, args=(number,)) for number in texts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert found == texts


def test_closing_ends_the_child_and_loading_starts_another(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("一")
    with Parser(LIMITS) as parser:
        parser.load(path, path.name)
        child = child_of(os.getpid())

        parser.close()

        assert wait_until_gone(child)
        assert parser.load(path, path.name).text == "一"


def test_the_child_knows_no_proxies_keys_or_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KB_API_KEY", "secret")
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    path = tmp_path / "a.txt"
    path.write_text("一")

    with Parser(LIMITS) as parser:
        parser.load(path, path.name)
        environment = child_of(os.getpid()).environ()

    assert "secret" not in environment.values()
    assert not [name for name in environment if "proxy" in name.lower()]
    assert environment["DO_NOT_TRACK"] == "1"


def test_modules_are_not_imported_from_the_folder_of_the_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("json", "ingest", "lxml"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('imported from the folder')")
    (tmp_path / "a.html").write_text("<p>一</p>")
    monkeypatch.chdir(tmp_path)

    with Parser(LIMITS) as parser:
        assert parser.load(Path("a.html"), "a.html").text == "一"


def test_the_child_ends_with_its_parent(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("一")
    script = textwrap.dedent(
        f"""
        import pathlib, sys, time
        from ingest.parser import Parser
        from tests.ingest.files_samples import LIMITS
        parser = Parser(LIMITS)
        parser.load(pathlib.Path({str(path)!r}), "a.txt")
        print("ready", flush=True)
        time.sleep(60)
        """
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, cwd=ROOT, text=True
    ) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "ready\n"
        child = child_of(parent.pid)

        parent.kill()

    assert wait_until_gone(child)


def test_what_libraries_print_does_not_come_between_the_messages() -> None:
    script = textwrap.dedent(
        """
        import os
        from ingest.parser_child import _take_over_pipes, write_message
        requests, answers = _take_over_pipes()
        print("noise", flush=True)
        os.write(1, b"noise from C")
        os.system("echo noise from a program")
        write_message(answers, {"document": "好"})
        """
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, check=True, timeout=60
    )
    stream = io.BytesIO(done.stdout)

    assert read_message(stream) == {"document": "好"}
    assert stream.read() == b""
    assert done.stderr.count(b"noise") == 3


def test_the_child_can_neither_connect_nor_start_programs() -> None:
    script = textwrap.dedent(
        """
        import os, socket, subprocess, sys
        from ingest.parser_child import _forbid_outside
        sys.addaudithook(_forbid_outside)
        for forbidden in (
            lambda: socket.create_connection(("127.0.0.1", 9)),
            lambda: subprocess.run(["true"]),
            lambda: os.system("true"),
        ):
            try:
                forbidden()
            except PermissionError:
                continue
            raise SystemExit("was allowed")
        """
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=False, timeout=60)

    assert done.returncode == 0


@pytest.mark.parametrize(("pause", "is_in_time"), [(0.4, True), (30, False)])
def test_each_part_that_a_child_tells_of_renews_the_time_limit(
    monkeypatch: pytest.MonkeyPatch, pause: float, is_in_time: bool
) -> None:
    """The whole takes longer than the limit; no part of it does."""
    script = (
        "import json, struct, sys, time\n"
        "def tell(message):\n"
        "    data = json.dumps(message).encode()\n"
        "    sys.stdout.buffer.write(struct.pack('>I', len(data)) + data)\n"
        "    sys.stdout.buffer.flush()\n"
        "tell({'started': True})\n"
        "for _ in range(4):\n"
        "    tell({'part': True})\n"
        f"    time.sleep({pause})\n"
        "tell({'document': {}})\n"
        "sys.stdin.read()\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    process = ParserProcess(replace(LIMITS, timeout_s=1.2))
    process._child = child
    expected: AbstractContextManager[object] = nullcontext()
    if not is_in_time:
        expected = pytest.raises(LimitExceededError, match="longer")

    with expected:
        assert process.ask(Path("a.pdf"), "a.pdf", lambda: False) == {"document": {}}
    process.close()

    assert child.poll() is not None
