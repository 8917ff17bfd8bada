"""Figures that a sync must show, with the fake embedder: what is not read, parsed or embedded.

    python -m benchmarks.resync --files 10000

Makes a folder of short texts in a temporary place (a system drive, not a network one), syncs it,
and prints JSON:

- `resync_s`: a second sync of all files, none of them changed (target: 5 s for 10,000), the best
  of three; `resync_ignored_s`: the same under a `.kbignore` of ten patterns that match nothing.
- `edit_embedded` of `edit_chunks`: chunks embedded after one sentence of a long document was
  edited, the most of ten edits at random places (target: at most 3).
- `rename_embedded`: after 100 files were renamed, one folder with them (target: 0).
- `burst_syncs`: syncs under watching while as many files as `--files` are written in one go, and
  `burst_s`, from the last write until all are documents.
"""

import argparse
import json
import os
import random
import shutil
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from ingest.fake import FakeEmbedder
from ingest.sync import SyncOptions, sync_folders
from ingest.watch import watch
from kb.config import Settings
from kb.records import IngestReport, KnowledgeBase
from kb.storage.documents import find_document
from kb.wiring import Services

FILES_PER_FOLDER = 100
EDITS = 10
PATTERNS = "\n".join(f"/archive{n}/**/draft-*.md" for n in range(10))


def write(path: Path, text: str) -> None:
    """Write a file that looks as if it had been there for a while."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    old = time.time() - 60
    os.utime(path, (old, old))


def sync(services: Services, base: KnowledgeBase, folder: Path) -> IngestReport:
    return sync_folders(services.sync_parts, base, [folder], SyncOptions(yes=True))


def make_files(folder: Path, n_files: int, word: str = "") -> None:
    for n in range(n_files):
        place = folder / f"part{n // FILES_PER_FOLDER}" / f"文件{n}.txt"
        write(place, f"{word}设备 {n} 每 {n % 90} 天检查一次，由班长签字确认后归档保存。\n")


def unchanged(services: Services, base: KnowledgeBase, folder: Path) -> float:
    """Return the seconds of the fastest of three syncs that find nothing to do."""
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        report = sync(services, base, folder)
        seconds.append(time.perf_counter() - started)
        assert report.added == report.changed == report.removed == report.chunks_embedded == 0
    return round(min(seconds), 2)


def edits(services: Services, base: KnowledgeBase, folder: Path) -> tuple[int, int]:
    """Return the chunks of a long document and the most that one edited sentence embedded."""
    rng = random.Random(1)
    sentences = [
        f"第{n}条规定，编号 BX{rng.randrange(10**6):06d} 的设备每 {n % 90 + 1} 天由班组检查，"
        f"记录保存 {n % 7 + 1} 年。"
        for n in range(3_000)
    ]
    place = folder / "long.txt"

    def store() -> int:
        paragraphs = ["".join(sentences[n : n + 6]) for n in range(0, len(sentences), 6)]
        write(place, "\n\n".join(paragraphs))
        return sync(services, base, folder).chunks_embedded

    store()
    with services.database.read() as session:
        n_chunks = find_document(session, base, "long.txt").n_chunks
    worst = 0
    for _ in range(EDITS):
        n = rng.randrange(len(sentences))
        sentences[n] = sentences[n].replace("班组检查", "车间主任亲自检查并拍照", 1)
        worst = max(worst, store())
    return n_chunks, worst


def rename(services: Services, base: KnowledgeBase, folder: Path) -> IngestReport:
    (folder / "part0").rename(folder / "renamed")
    return sync(services, base, folder)


def burst(services: Services, base: KnowledgeBase, folder: Path, n_files: int) -> tuple[int, float]:
    """Return how many syncs a burst of new files caused, and the seconds until all were in."""
    folder.mkdir()
    syncs: list[IngestReport] = []
    is_over = threading.Event()

    def sync_roots(roots: Sequence[Path]) -> None:
        syncs.append(sync(services, base, roots[0]))
        if is_over.is_set():
            raise KeyboardInterrupt

    def run() -> None:
        try:
            watch([folder], sync_roots, warn=print)
        except KeyboardInterrupt:
            return

    thread = threading.Thread(target=run)
    thread.start()
    while not syncs:
        time.sleep(0.1)
    make_files(folder, n_files, "新")
    started = time.perf_counter()
    while sum(report.added for report in syncs) < n_files:
        time.sleep(0.05)
    seconds = time.perf_counter() - started
    time.sleep(5)  # were there a straggler, it would start now
    n_syncs = len(syncs) - 1  # the first found an empty folder
    assert sum(report.added for report in syncs) == n_files
    is_over.set()
    write(folder / "last.txt", "ends the watching")
    thread.join()
    return n_syncs, round(seconds, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=10_000)
    n_files = parser.parse_args().files
    place = Path(tempfile.mkdtemp(prefix="kb-resync-"))
    try:
        settings = Settings(home=place / "home")
        with Services.open(settings, embedder=FakeEmbedder()) as services:
            base = services.create_base("resync")
            docs = place / "docs"
            make_files(docs, n_files)
            time.sleep(2.1)  # times younger than two seconds are not trusted
            started = time.perf_counter()
            sync(services, base, docs)
            figures: dict[str, object] = {
                "files": n_files,
                "first_s": round(time.perf_counter() - started, 1),
                "resync_s": unchanged(services, base, docs),
            }
            (docs / ".kbignore").write_text(PATTERNS)
            figures["resync_ignored_s"] = unchanged(services, base, docs)
            renamed = rename(services, base, docs)
            figures["renamed"] = renamed.moved
            figures["rename_embedded"] = renamed.chunks_embedded
            figures["edit_chunks"], figures["edit_embedded"] = edits(services, base, docs)
            other = services.create_base("burst")
            n_syncs, seconds = burst(services, other, place / "burst", n_files)
            figures |= {"burst_syncs": n_syncs, "burst_s": seconds}
        print(json.dumps(figures))
    finally:
        shutil.rmtree(place)


if __name__ == "__main__":
    main()
