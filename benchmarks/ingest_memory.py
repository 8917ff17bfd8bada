"""Peak memory of an ingest by the number of files: it must not grow with the folder.

    python -m benchmarks.ingest_memory [--files 100 1000 10000]

Each ingest runs in a process of its own with an embedder that has no weights, so that what is
measured is the pipeline: plan, parsed texts that wait, chunks, transactions, the index's vectors
left out. Files are of 2 to 20 kB. Memory is the peak resident size of that process; the parser's
children have their own limit.
"""

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

SEED = 5
WORDS = [
    "泵",
    "阀门",
    "轴承",
    "检查",
    "记录",
    "每日",
    "安全",
    "压力",
    "pump",
    "valve",
    "bearing",
    "daily",
]


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    arguments.add_argument("--files", type=int, nargs="+", default=[100, 1000, 10_000])
    arguments.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = arguments.parse_args()
    if given.folder:
        print(json.dumps(_ingest(given.folder)))
        return
    for n_files in given.files:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            _write_files(folder / "docs", n_files)
            command = [sys.executable, "-m", "benchmarks.ingest_memory", "--folder", name]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            print(json.dumps({"files": n_files, **json.loads(done.stdout)}), flush=True)


def _write_files(folder: Path, n_files: int) -> None:
    words = random.Random(SEED)
    for number in range(n_files):
        path = folder / f"{number // 500:03d}" / f"{number:05d}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = [" ".join(words.choices(WORDS, k=12)) + "。" for _ in range(words.randint(20, 200))]
        path.write_text(f"{number}\n" + "\n".join(lines), encoding="utf-8")


def _ingest(folder: Path) -> dict[str, float]:
    from ingest.fake import FakeEmbedder
    from ingest.sync import SyncOptions, sync_folders
    from kb.config import Settings
    from kb.wiring import Services

    settings = Settings.model_validate({"home": folder / "home"})
    with Services.open(settings, embedder=FakeEmbedder()) as services:
        base = services.create_base("memory")
        report = sync_folders(services.sync_parts, base, [folder / "docs"], SyncOptions())
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {
        "added": report.added,
        "chunks": report.chunks_embedded,
        "seconds": round(report.seconds, 1),
        "peak_memory_mb": round(peak_mb, 1),
    }


if __name__ == "__main__":
    main()
