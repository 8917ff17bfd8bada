"""A killed ingest loses nothing: a short run of `benchmarks/kill_ingest.py`."""

from pathlib import Path

import pytest

from benchmarks.kill_ingest import run_round


@pytest.mark.slow
@pytest.mark.parametrize(
    ("place", "passes", "wait_s"),
    [
        ("sync.writing", 1, 0.0),
        ("sync.removing", 0, 0.0),
        ("index.renamed", 0, 0.0),
        ("", 0, 1.2),
    ],
)
def test_an_interrupted_ingest_run_again_equals_an_uninterrupted_one(
    tmp_path: Path, place: str, passes: int, wait_s: float
) -> None:
    result = run_round(tmp_path / "docs", place, passes, n_files=14, is_real=False, wait_s=wait_s)

    assert result.problems == ()
    assert result.was_killed
