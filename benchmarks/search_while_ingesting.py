"""How much slower searches are while documents are ingested, with the real embedder.

    python -m benchmarks.search_while_ingesting FOLDER QUESTIONS.jsonl

Ingests every fifth file of FOLDER, searches with the questions (JSON lines with `question`), then
ingests the other files and goes on searching until they are in: first in a thread of the same
process, as the server ingests, then, into a second base, in another process, as `kb ingest` does
beside a server. A person's pause of `--pause` seconds lies between two searches. Prints JSON:
milliseconds of a whole search with its question's embedding, at rest and meanwhile.

The target for the 95th percentile meanwhile is the larger of 3 times that at rest and 150 ms.
"""

import argparse
import itertools
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from ingest.sync import SyncOptions, sync_folders
from kb.config import Settings
from kb.records import Question
from kb.wiring import Services

AT_REST = 200
EVERY = 5


def copy_files(folder: Path, to: Path, *, is_first: bool) -> int:
    """Copy every fifth file, or the others; return how many."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    chosen = [path for i, path in enumerate(files) if (i % EVERY == 0) == is_first]
    for path in chosen:
        place = to / path.relative_to(folder)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, place)
    return len(chosen)


def search_until(
    services: Services, kb: str, questions: Sequence[str], pause_s: float, done: Callable[[], bool]
) -> list[float]:
    """Return the milliseconds of each search until `done`."""
    taken: list[float] = []
    for text in itertools.cycle(questions):
        if done():
            return taken
        started = time.perf_counter()
        services.retriever.search(Question(text, (kb,), 5))
        taken.append((time.perf_counter() - started) * 1000)
        time.sleep(pause_s)
    return taken


def figures(taken: Sequence[float]) -> dict[str, float]:
    return {
        "searches": len(taken),
        "p50_ms": round(statistics.median(taken), 1),
        "p95_ms": round(statistics.quantiles(taken, n=20)[18], 1),
        "worst_ms": round(max(taken), 1),
    }


def measure(
    home: Path, folder: Path, questions: Sequence[str], pause_s: float, *, is_other_process: bool
) -> dict[str, dict[str, float]]:
    """Measure one way of ingesting, in a base of its own."""
    name = "other" if is_other_process else "same"
    documents = home / name
    copy_files(folder, documents, is_first=True)
    with Services.open(Settings(home=home)) as services:
        base = services.create_base(name)
        sync_folders(services.sync_parts, base, [documents], SyncOptions())
        counted = iter(range(AT_REST + 20))
        rest = search_until(
            services, name, questions, pause_s, lambda: next(counted, None) is None
        )[20:]
        copy_files(folder, documents, is_first=False)
        if is_other_process:
            child = subprocess.Popen(
                [sys.executable, "-m", "kb.cli", "ingest", str(documents), "--kb", name],
                env={**os.environ, "KB_HOME": str(home)},
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            busy = search_until(
                services, name, questions, pause_s, lambda: child.poll() is not None
            )
        else:
            thread = threading.Thread(
                target=sync_folders,
                args=(services.sync_parts, base, [documents], SyncOptions()),
            )
            thread.start()
            busy = search_until(services, name, questions, pause_s, lambda: not thread.is_alive())
    return {"at_rest": figures(rest), "meanwhile": figures(busy)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("folder", type=Path)
    parser.add_argument("questions", type=Path)
    parser.add_argument("--pause", type=float, default=0.05, help="seconds between searches")
    args = parser.parse_args()
    lines = args.questions.read_text(encoding="utf-8").split("\n")
    questions = [json.loads(line)["question"] for line in lines if line]
    home = Path(tempfile.mkdtemp(prefix="kb-bench-"))
    try:
        report = {
            where: measure(
                home, args.folder, questions, args.pause, is_other_process=where == "other_process"
            )
            for where in ("same_process", "other_process")
        }
        print(json.dumps(report, indent=1))
    finally:
        shutil.rmtree(home, ignore_errors=True)


if __name__ == "__main__":
    main()
