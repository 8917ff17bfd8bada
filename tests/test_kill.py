"""A killed process loses nothing: short runs of `benchmarks/kill_ingest.py`."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.kill_ingest import WORK, places
from kb import failpoints

ROOT = Path(__file__).resolve().parents[1]


def test_the_list_of_failpoints_is_that_of_the_code() -> None:
    named = [
        name
        for package in ("kb", "ingest", "api")
        for path in (ROOT / package).rglob("*.py")
        for name in re.findall(r'failpoint\("([^"]+)"\)', path.read_text(encoding="utf-8"))
    ]

    assert sorted(set(named)) == sorted(failpoints.PLACES)
    assert {place for _, place in places()} == set(failpoints.PLACES)


def test_an_unknown_failpoint_cannot_be_armed() -> None:
    with pytest.raises(ValueError, match="no failpoint"):
        failpoints.arm("sync.nowhere")


# One of each phase; `benchmarks/kill_ingest.py` has all of them, and runs of hundreds.
KILLS = (
    "first ingest:migration.upgrading",
    "upgrade:migration.backed-up",
    "ingest:sync.parsed",
    "ingest:sync.vectors-stored",
    "ingest:sync.writing",
    "ingest:sync.removing",
    "ingest:index.renamed",
    "move:move.stored",
    "move:move.swapping",
    "move:move.swapped",
    "remove:documents.removing",
    "erase:erase.removed",
    "erase:erase.vacuumed",
)


@pytest.mark.slow
def test_what_was_killed_and_run_again_equals_what_was_not() -> None:
    arguments = [argument for kill in KILLS for argument in ("--at", kill)]

    # In a process of its own: the drill forks, which threads of other tests would not survive.
    ran = subprocess.run(
        [sys.executable, "-m", "benchmarks.kill_ingest", *arguments, "--signals", str(len(WORK))],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=1500,
        check=False,
    )

    assert ran.returncode == 0, ran.stderr + ran.stdout
    total = re.search(r"(\d+) rounds, (\d+) killed before the end, 0 with problems", ran.stdout)
    assert total is not None
    assert int(total[1]) == len(KILLS) + len(WORK)
    assert int(total[2]) >= len(KILLS)
