"""A full disk is told in one line and costs nothing: a short run of `benchmarks/disk_full.py`."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.disk_full import why_not


@pytest.mark.slow
def test_an_ingest_on_a_full_disk_says_so_and_goes_on_when_there_is_room() -> None:
    if reason := why_not():
        pytest.skip(reason)

    # In a process of its own: the drill forks, which threads of other tests would not survive.
    ran = subprocess.run(
        [sys.executable, "-m", "benchmarks.disk_full", "--rounds", "6"],
        capture_output=True,
        text=True,
        cwd=Path(__file__).resolve().parents[1],
        timeout=900,
        check=False,
    )

    assert ran.returncode == 0, ran.stderr + ran.stdout
    total = re.search(r"6 rounds, (\d+) ended by the full disk, 0 with problems", ran.stdout)
    assert total is not None
    assert int(total[1]) > 0
