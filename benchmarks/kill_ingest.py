"""Kill an ingest again and again, and check that nothing is lost, doubled or left over.

    python -m benchmarks.kill_ingest --kills 20 --real 3

Each round starts `kb ingest` of a changed folder in a child process, kills it at a named
failpoint or after a random time, runs it again to the end, and compares the knowledge base with
one that was ingested without interruption; `kb verify` must be clean. The fake embedder is used
unless `--real` asks for rounds with the real one.
"""

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

FAILPOINTS = (
    "sync.moved",
    "sync.parsed",
    "sync.embedded",
    "sync.vectors-stored",
    "sync.writing",
    "sync.written",
    "sync.removing",
    "sync.sweeping",
    "index.written",
    "index.renamed",
    "index.named",
)
KILLED = 137


@dataclass(frozen=True, slots=True)
class Round:
    """What one kill did: where, whether it hit, and what was wrong afterwards."""

    place: str
    was_killed: bool
    problems: tuple[str, ...]


# The child: one ingest, dying where it is told to.


def ingest_and_die(home: Path, folder: Path, place: str, passes: int, is_real: bool) -> None:
    """Run one ingest in this process; `place` is a failpoint, or "" to run to the end."""
    from ingest.fake import FakeEmbedder
    from ingest.sync import SyncOptions
    from kb import failpoints, index
    from kb.cli.ingest import run_sync
    from kb.config import Settings
    from kb.wiring import Services

    index.SNAPSHOT_AFTER_EVENTS = 1  # every run writes a snapshot, so that it can die in one
    if place:
        failpoints.arm(place, passes)
    embedder = None if is_real else FakeEmbedder()
    with Services.open(Settings(home=home), embedder=embedder) as services:
        run_sync(services, "kill", [folder], SyncOptions(yes=True))


def run_child(
    home: Path, folder: Path, place: str, passes: int, is_real: bool, wait_s: float
) -> int:
    """Start the child, kill it after `wait_s` seconds (0 lets it run), return its exit code."""
    child = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "benchmarks.kill_ingest",
            "--child",
            json.dumps([str(home), str(folder), place, passes, is_real]),
        ],
        stderr=subprocess.DEVNULL,
    )
    if wait_s:
        time.sleep(wait_s)
        child.send_signal(signal.SIGKILL)
    return child.wait(timeout=300)


# The folder: two states, so that adds, changes, moves and removals are all interrupted.


def write_folder(folder: Path, state: int, n_files: int) -> None:
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
    (folder / "坏.xyz").write_bytes(b"\0\1\2")


def _paragraph(n: int, line: int) -> str:
    key = hashlib.sha256(f"{n}/{line}".encode()).hexdigest()
    return f"设备 {key[:8]} 每 {line + 3} 天检查一次，The pump {key[8:14]} runs {n} hours. " * 3


def fingerprint(home: Path) -> tuple[list[str], list[str]]:
    """Return what the knowledge base holds, and what `kb verify` says against it."""

    from ingest.fake import FakeEmbedder
    from ingest.splitter import SPLITTER
    from kb.config import Settings
    from kb.storage.bases import find_base
    from kb.storage.documents import list_chunks, list_documents
    from kb.verify import verify
    from kb.wiring import Services

    rows: list[str] = []
    with Services.open(Settings(home=home), embedder=FakeEmbedder()) as services:
        report = verify(services.database, services.retriever, services.blobs, splitter=SPLITTER)
        with services.database.read() as session:
            base = find_base(session, "kill")
            documents, _ = list_documents(session, base.id, limit=100_000)
            for document in documents:
                rows.append(f"{document.path} {document.status} {document.error}")
                rows += [
                    f"{document.path} {c.start}-{c.end} {c.heading} {hash_of(c.text)}"
                    for c in list_chunks(session, document)
                ]
    return rows, [f"{problem.kind}: {problem.detail}" for problem in report.problems]


def hash_of(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def run_round(
    folder: Path, place: str, passes: int, *, n_files: int, is_real: bool, wait_s: float
) -> Round:
    """Ingest state 0, kill the ingest of state 1, run it again, compare with a clean run."""
    with tempfile.TemporaryDirectory() as scratch:
        interrupted, clean = Path(scratch, "interrupted"), Path(scratch, "clean")
        write_folder(folder, 0, n_files)
        for home in (interrupted, clean):
            run_child(home, folder, "", 0, is_real, 0)
        write_folder(folder, 1, n_files)
        code = run_child(interrupted, folder, place, passes, is_real, wait_s)
        _, torn = fingerprint(interrupted)
        for home in (interrupted, clean):
            if run_child(home, folder, "", 0, is_real, 0) != 0:
                return Round(place, True, ("the second run failed",))
        found, problems = fingerprint(interrupted)
        expected, _ = fingerprint(clean)
        problems += [f"right after the kill: {problem}" for problem in torn]
        problems += [f"lost: {row}" for row in expected if row not in set(found)][:5]
        problems += [f"too much: {row}" for row in found if row not in set(expected)][:5]
        name = place or f"SIGKILL after {wait_s:.2f} s"
        return Round(name, code in (KILLED, -signal.SIGKILL), tuple(problems))


def run_rounds(n_kills: int, n_real: int, *, n_files: int = 28, seed: int = 1) -> list[Round]:
    """Run the rounds: failpoints in turn, every third one a SIGKILL at a random moment."""
    chance = random.Random(seed)
    rounds = []
    with tempfile.TemporaryDirectory() as scratch:
        for i in range(n_kills):
            is_real = i < n_real
            is_random = i % 3 == 2
            rounds.append(
                run_round(
                    Path(scratch, "docs"),
                    "" if is_random else FAILPOINTS[(i - i // 3) % len(FAILPOINTS)],
                    0 if is_random else chance.choice([0, 0, 1, 3]),
                    n_files=n_files,
                    is_real=is_real,
                    wait_s=chance.uniform(0.8, 9 if is_real else 3) if is_random else 0,
                )
            )
            print(f"{i + 1}/{n_kills} {rounds[-1]}", file=sys.stderr, flush=True)
    return rounds


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--real", type=int, default=3, help="rounds with the real embedder")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.child:
        home, folder, place, passes, is_real = json.loads(options.child)
        ingest_and_die(Path(home), Path(folder), place, passes, is_real)
        return 0
    rounds = run_rounds(options.kills, options.real, seed=options.seed)
    n_bad = sum(1 for r in rounds if r.problems)
    n_killed = sum(1 for r in rounds if r.was_killed)
    print(f"{len(rounds)} rounds, {n_killed} killed before the end, {n_bad} with problems")
    return 1 if n_bad else 0


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "2")
    sys.exit(main())
