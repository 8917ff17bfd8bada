"""Count the flags that ordinary documents get: every one that is not earned is a false alarm.

    python -m benchmarks.flag_rate DIR...

Loads every file below the folders as ingest does (but in this process) and prints its flags. In
a `corpus.jsonl`, as the question sets have, each line's `text` is a document of its own. Files
that cannot be read are passed over.
"""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from ingest.loaders import extension, is_supported, load_bytes
from ingest.loaders.base import LoadedText, ParseLimits
from ingest.loaders.libreoffice import NEW_FORMATS
from ingest.loaders.screen import screen
from kb.config import Settings
from kb.errors import LoadError


def documents(folder: Path, limits: ParseLimits) -> Iterator[tuple[str, LoadedText]]:
    for path in sorted(folder.rglob("*")):
        if not path.is_file() or not is_supported(path.name):
            continue
        if path.name == "corpus.jsonl":
            for line in path.read_text(encoding="utf-8").split("\n"):
                if line.strip():
                    record = json.loads(line)
                    yield f"{path}: {record['doc_id']}", screen(LoadedText(record["text"]))
        elif extension(path.name) not in NEW_FORMATS:
            try:
                yield str(path), load_bytes(path.read_bytes(), path.name, limits)
            except LoadError:
                continue


def main() -> int:
    description = (__doc__ or "").split("\n", 1)[0]
    options = argparse.ArgumentParser(description=description)
    options.add_argument("folders", nargs="+", type=Path)
    limits = ParseLimits.of(Settings())
    for folder in options.parse_args().folders:
        n_documents = n_chars = 0
        kinds: Counter[str] = Counter()
        for name, loaded in documents(folder, limits):
            n_documents += 1
            n_chars += len(loaded.text)
            kinds.update({flag.kind for flag in loaded.flags})
            for flag in loaded.flags:
                print(f"  {name}: {flag.kind}: {flag.detail}")
        counts = ", ".join(f"{n} {kind}" for kind, n in kinds.items()) or "no flag"
        print(f"{folder}: {n_documents} documents, {n_chars:,} characters: {counts}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
