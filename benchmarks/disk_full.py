"""Fill the disk at a random moment of an ingest, and check that nothing is lost.

    sudo python -m benchmarks.disk_full --rounds 20

The data folder lies on a small file system in memory (only root may mount one) that is filled up
but for a random number of bytes. The ingest must end with status 1 and one line that says that the
disk is full and what to do, or succeed, if the room was enough but for the index snapshot, which
is not needed. Then room is made, the same ingest runs again, `kb verify` must be clean, and
documents, chunks, texts and hits must equal those of a run that had room.
"""

import argparse
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.drills import (
    BASE,
    TRACEBACK,
    State,
    differences,
    in_child,
    run_command,
    state_of,
    warm_up,
    write_folder,
)

SIZE_MB = 64


@dataclass(frozen=True, slots=True)
class Round:
    """What one full disk did: how much room there was, how the ingest ended, what was wrong."""

    free_kb: int
    code: int
    message: str
    problems: tuple[str, ...]


def why_not() -> str:
    """Return why this machine cannot run the drill, "" if it can."""
    if not sys.platform.startswith("linux"):
        return "only Linux has tmpfs"
    if os.geteuid() != 0:
        return "only root may mount a tmpfs"
    with tempfile.TemporaryDirectory() as name:
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=1m", "kb-drill", name],
            capture_output=True,
            check=False,
        )
        if mounted.returncode:
            return f"mount is refused: {mounted.stderr.decode().strip()}"
        subprocess.run(["umount", name], check=True)
    return ""


@contextmanager
def small_disk(place: Path, size_mb: int = SIZE_MB) -> Iterator[Path]:
    """Mount a file system in memory, gone with all that is in it afterwards."""
    place.mkdir()
    options = f"size={size_mb}m"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "kb-drill", str(place)], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


def run_round(
    scratch: Path, disk: Path, before: Path | None, free_kb: int, expected: State
) -> Round:
    """Ingest with `free_kb` of room, make room, ingest again, compare.

    `before` is a data folder to start from, None to start from nothing.
    """
    home, ballast = disk / "home", disk / "ballast"
    shutil.rmtree(home, ignore_errors=True)
    if before is not None:
        shutil.copytree(before, home)
    _fill(ballast, free_kb)
    folder = scratch / "docs"
    ran = in_child(lambda: run_command(home, *_ingest(folder)), scratch)
    ballast.unlink()
    problems = _complaints(ran.code, ran.err)
    if (home / "kb.sqlite3").exists():
        torn = state_of(home, scratch)
        problems += [f"right after: {problem}" for problem in torn.problems]
    again = in_child(lambda: run_command(home, *_ingest(folder)), scratch)
    if again.code:
        problems.append(f"the second run ended with {again.code}: {again.err[-300:]}")
    problems += differences(state_of(home, scratch), expected)
    return Round(free_kb, ran.code, ran.err.strip()[-300:], tuple(problems))


def _ingest(folder: Path) -> tuple[str, ...]:
    return ("ingest", str(folder), "--kb", BASE, "--yes")


def _fill(ballast: Path, free_kb: int) -> None:
    room = shutil.disk_usage(ballast.parent).free - free_kb * 1024
    with ballast.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(room, 1))


def _complaints(code: int, err: str) -> list[str]:
    """Return what is wrong with how the ingest ended."""
    lines = err.strip().splitlines()
    if code == 0:
        return []  # there was room enough, if need be without a snapshot (a warning says so)
    if code == TRACEBACK or "Traceback" in err:
        return [f"a traceback: {err[-300:]}"]
    if code != 1:
        return [f"ended with {code}"]
    last = lines[-1] if lines else ""
    if not (last.startswith("kb: ") and "disk is full" in last and "free some space" in last):
        return [f"not the message of a full disk: {last!r}"]
    if "run the same command again" not in last:
        return [f"does not say to run it again: {last!r}"]
    return []


def run_rounds(n_rounds: int, *, n_files: int = 14, seed: int = 1) -> list[Round]:
    """Run the rounds, alternately from nothing and from an earlier state of the folder."""
    chance = random.Random(seed)
    rounds: list[Round] = []
    with tempfile.TemporaryDirectory() as name, small_disk(Path(name, "disk")) as disk:
        scratch = Path(name)
        warm_up()
        before, whole = scratch / "before", disk / "home"
        write_folder(scratch / "docs", 0, n_files, with_bad=False)
        _must_run(before, scratch)
        write_folder(scratch / "docs", 1, n_files, with_bad=False)
        _must_run(whole, scratch)
        expected = state_of(whole, scratch)
        most_kb = sum(f.stat().st_size for f in whole.rglob("*") if f.is_file()) // 1024
        for i in range(n_rounds):
            # The write-ahead log takes as much again as the file.
            free_kb = chance.randrange(0, 2 * most_kb)
            start = before if i % 2 else None
            rounds.append(run_round(scratch, disk, start, free_kb, expected))
            print(f"{i + 1}/{n_rounds} {rounds[-1]}", file=sys.stderr, flush=True)
    return rounds


def _must_run(home: Path, scratch: Path) -> None:
    ran = in_child(lambda: run_command(home, *_ingest(scratch / "docs")), scratch)
    assert ran.code == 0, ran


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    if reason := why_not():
        print(f"skipped: {reason}")
        return 0
    rounds = run_rounds(options.rounds, seed=options.seed)
    n_full = sum(1 for r in rounds if r.code == 1)
    n_bad = sum(1 for r in rounds if r.problems)
    print(f"{len(rounds)} rounds, {n_full} ended by the full disk, {n_bad} with problems")
    return 1 if n_bad else 0


if __name__ == "__main__":
    sys.exit(main())
