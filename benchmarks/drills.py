"""What the drills share: a folder in two states, runs in child processes, and comparing ends.

A child is forked, so that it has its imports at once; this process itself opens no database and
starts no threads. What a child prints and returns goes through files.
"""

import hashlib
import json
import os
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from ingest.fake import FakeEmbedder
from ingest.splitter import SPLITTER
from kb.config import Settings
from kb.records import Question
from kb.retrieval import index
from kb.storage import database as database_module
from kb.storage.bases import list_bases
from kb.storage.documents import list_chunks, list_documents
from kb.text.terms import index_terms
from kb.upkeep.verify import verify
from kb.wiring import Services

BASE = "drill"
QUESTIONS = ("设备 检查 天", "pump runs hours", "第3章", "每 9 天检查一次")
# Far longer than any work here: a busy machine may stop us for minutes.
CHILD_TIMEOUT_S = 1800
TRACEBACK = 99
TIMED_OUT = 98


@dataclass(frozen=True, slots=True)
class Ran:
    """How a child ended: its exit code (negative for a signal), and what it wrote."""

    code: int
    seconds: float
    out: str
    err: str


@dataclass(frozen=True, slots=True)
class State:
    """What a knowledge base holds and finds, and what `kb verify` says against it."""

    rows: tuple[str, ...]
    problems: tuple[str, ...]


def warm_up() -> None:
    """Load what every child needs, once: modules, and the dictionary that segments Chinese."""
    for name in (
        "ingest.sync",
        "kb.cli.ingest",
        "kb.cli.docs",
        "kb.upkeep.erase",
        "alembic.command",
    ):
        import_module(name)
    index_terms("先读词典")


def in_child(work: Callable[[], Any], scratch: Path, *, kill_after_s: float = 0) -> Ran:
    """Run `work` in a forked child, and kill it after a while if asked to.

    The child's exit code is what `work` returns, 0 for None; `TRACEBACK` if it raised.
    """
    out, err = scratch / "out", scratch / "err"
    started = time.monotonic()
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        _be_child(work, out, err)
    if kill_after_s:
        time.sleep(kill_after_s)
        os.kill(pid, signal.SIGKILL)
    code = _wait(pid)
    return Ran(code, time.monotonic() - started, out.read_text(), err.read_text())


def _be_child(work: Callable[[], Any], out: Path, err: Path) -> None:
    code = TRACEBACK
    try:
        for path, number in ((out, 1), (err, 2)):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), number)
        code = int(work() or 0)
    # Everything: a child must never run on into its parent's code.
    except BaseException:  # noqa: BLE001
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _wait(pid: int) -> int:
    deadline = time.monotonic() + CHILD_TIMEOUT_S
    while time.monotonic() < deadline:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return TIMED_OUT


def open_services(home: Path, *, is_real: bool = False) -> Services:
    """Open services that write a snapshot after every change, so that a run can die in one."""
    index.SNAPSHOT_AFTER_EVENTS = 1
    return Services.open(Settings(home=home), embedder=None if is_real else FakeEmbedder())


def run_command(home: Path, *arguments: str, is_real: bool = False) -> int:
    """Run one `kb` command as a user would."""
    from kb.cli.edge import Edge
    from kb.cli.main import run

    class DrillEdge(Edge):
        @property
        def services(self) -> Services:  # type: ignore[override]
            if "opened" not in self.__dict__:
                self.__dict__["opened"] = open_services(home, is_real=is_real)
            opened: Services = self.__dict__["opened"]
            return opened

        def close(self) -> None:
            if "opened" in self.__dict__:
                self.__dict__["opened"].close()

    return run(list(arguments), DrillEdge({"home": str(home)}))


# The folder: two states, so that adds, changes, moves and removals are all interrupted.


def write_folder(folder: Path, state: int, n_files: int, *, with_bad: bool = True) -> None:
    """Write state 0 or 1 of the folder; state 1 has edits, renames, removals and additions."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for n in range(n_files):
        if state == 1 and n % 7 == 3:
            continue  # removed
        name = f"改名{n}.md" if state == 1 and n % 7 == 5 else f"文件{n}.md"
        body = [_paragraph(n, line) for line in range(12 + n % 5)]
        if state == 1 and n % 7 == 1:
            body[4] = _paragraph(n, 1000)
        (folder / name).write_text(f"# 第{n}章\n\n" + "\n\n".join(body), encoding="utf-8")
    if state == 1:
        (folder / "新.md").write_text(f"# 新\n\n{_paragraph(10_000, 1)}", encoding="utf-8")
    if with_bad:
        (folder / "坏.xyz").write_bytes(b"\0\1\2")


def _paragraph(n: int, line: int) -> str:
    key = hashlib.sha256(f"{n}/{line}".encode()).hexdigest()
    return f"设备 {key[:8]} 每 {line + 3} 天检查一次，The pump {key[8:14]} runs {n} hours. " * 3


# The end


def state_of(home: Path, scratch: Path, *, prepare: Callable[[], None] = lambda: None) -> State:
    """Return what a data folder holds, read in a child; `prepare` runs in it first."""
    target = scratch / "state.json"

    def work() -> None:
        prepare()
        target.write_text(json.dumps(_state(home)))

    target.unlink(missing_ok=True)
    ran = in_child(work, scratch)
    if ran.code:
        return State((), (f"cannot be verified: {ran.err[-500:]}",))
    rows, problems = json.loads(target.read_text())
    return State(tuple(rows), tuple(problems))


def _state(home: Path) -> tuple[list[str], list[str]]:
    with Services.open(Settings(home=home), embedder=FakeEmbedder()) as services:
        report = verify(services.database, services.retriever, services.blobs, splitter=SPLITTER)
        problems = [f"{problem.kind}: {problem.detail}" for problem in report.problems]
        rows: list[str] = []
        with services.database.read() as session:
            base = next((base for base in list_bases(session) if base.name == BASE), None)
            if base is None:  # killed before it was made
                return [], problems
            documents, _ = list_documents(session, base.id, limit=100_000)
            for document in documents:
                rows.append(f"{document.path} {document.status} {document.error}")
                rows += [
                    f"{document.path} {c.start}-{c.end} {c.heading} {_hash(c.text)}"
                    for c in list_chunks(session, document)
                ]
        if FakeEmbedder().matching(base.embedder):
            rows += _hits(services)
    return rows, problems


def _hits(services: Services) -> list[str]:
    """Return what each channel finds, but for those hits that tie with the last one.

    Chunks that score the same are ordered by their ids, which an interrupted run gives out
    differently.
    """
    found = []
    for question in QUESTIONS:
        for channel in ("dense", "lexical"):
            hits = services.retriever.search(Question(question, (BASE,), 10, channel)).hits  # type: ignore[arg-type]
            scores = [getattr(hit.channels, channel) or 0.0 for hit in hits]
            worst = min(scores, default=0.0)
            found += sorted(
                f"{question} {channel} {score:.4f}"
                + (f" {hit.document} {hit.chunk.start}" if score > worst + 1e-4 else "")
                for hit, score in zip(hits, scores, strict=True)
            )
    return found


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def differences(found: State, expected: State) -> list[str]:
    """Return what `kb verify` says, and in what an end state differs from the expected one."""
    problems = list(found.problems)
    problems += [f"lost: {row}" for row in expected.rows if row not in set(found.rows)][:5]
    problems += [f"too much: {row}" for row in found.rows if row not in set(expected.rows)][:5]
    return problems


# A database that is one migration behind: the next version's, played by one of our own.


def use_next_schema(folder: Path) -> None:
    """Make this process know one migration more than the code does, kept in `folder`."""
    head = database_module.SCHEMA_HEAD
    folder.mkdir(exist_ok=True)
    (folder / "next_schema.py").write_text(
        "import sqlalchemy as sa\nfrom alembic import op\n"
        f"revision = 'next'\ndown_revision = {head!r}\n"
        "def upgrade():\n"
        "    op.create_table('drill', sa.Column('id', sa.Text(), primary_key=True))\n"
        "    op.execute('INSERT INTO drill SELECT id FROM document')\n"
    )
    original = database_module.migrations_config

    def config() -> Any:
        made = original()
        versions = Path(database_module.__file__).parent / "migrations" / "versions"
        made.set_main_option("path_separator", "newline")
        made.set_main_option("version_locations", f"{versions}\n{folder}")
        return made

    database_module.migrations_config = config
    database_module.SCHEMA_HEAD = "next"
