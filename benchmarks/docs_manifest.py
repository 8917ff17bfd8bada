"""Read a folder of files of many formats and compare each outcome with a manifest.

    python -m benchmarks.docs_manifest FOLDER

FOLDER holds `manifest.jsonl`, one line per file: ``path``, ``format``, ``expect`` ("text", "error"
or "empty"), ``also_ok`` (other good outcomes), ``must_contain`` and ``must_not_contain`` (strings,
compared in NFKC without white space), ``ocr`` (text in pictures, for which 80 % of the characters
are enough), ``hard`` (such a file may fail) and ``optional`` (the format may be refused). Files are
parsed as `kb ingest` does, one after the other, with the default limits. It prints a table and, on
standard error, what was not as expected; nothing is stored.
"""

import argparse
import json
import sys
import time
import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rapidfuzz import fuzz

from ingest.parser import ParseLimits, Parser
from kb.config import Settings
from kb.errors import LoadError

_CLOSE = 80.0  # percent of the characters, for text that was recognised in pictures


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one file: "text", "empty" or "error", and what is wrong with that."""

    entry: dict[str, Any]
    kind: str
    reason: str
    missing: tuple[str, ...]
    unwanted: tuple[str, ...]
    seconds: float

    @property
    def is_expected(self) -> bool:
        accepted = [self.entry["expect"], *self.entry.get("also_ok", [])]
        if self.kind not in accepted:
            return bool(self.entry.get("hard"))
        is_wrong = self.kind == "text" and (self.missing or self.unwanted)
        return not is_wrong or bool(self.entry.get("hard"))


def read_manifest(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / "manifest.jsonl").read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines if line]


def judge(parser: Parser, folder: Path, entry: dict[str, Any]) -> Outcome:
    """Parse one file and compare it with its line of the manifest."""
    path = folder / entry["path"]
    text = reason = ""
    start = time.perf_counter()
    try:
        text = _flat(parser.load(path, path.name).text)
        kind = "text" if text else "empty"
    except LoadError as exc:
        kind, reason = "error", str(exc)
    seconds = time.perf_counter() - start
    parts = entry.get("must_contain", [])
    missing = tuple(part for part in parts if not _holds(text, _flat(part), entry))
    unwanted = tuple(part for part in entry.get("must_not_contain", []) if _flat(part) in text)
    return Outcome(entry, kind, reason, missing, unwanted, seconds)


def _flat(text: str) -> str:
    return "".join(unicodedata.normalize("NFKC", text).split())


def _holds(text: str, part: str, entry: dict[str, Any]) -> bool:
    if part in text:
        return True
    return bool(entry.get("ocr")) and bool(text) and fuzz.partial_ratio(part, text) >= _CLOSE


def table(outcomes: Sequence[Outcome]) -> Iterator[str]:
    """Yield the lines of a Markdown table, a row per format."""
    by_format: dict[str, list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        by_format[outcome.entry["format"]].append(outcome)
    yield "| format | files | as expected | read | empty | refused |"
    yield "|---|---|---|---|---|---|"
    for name, rows in [*sorted(by_format.items()), ("all", list(outcomes))]:
        kinds = [row.kind for row in rows]
        n_expected = sum(row.is_expected for row in rows)
        counts = " | ".join(str(kinds.count(kind)) for kind in ("text", "empty", "error"))
        yield f"| {name} | {len(rows)} | {n_expected} | {counts} |"


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    arguments.add_argument("folder", type=Path)
    folder = arguments.parse_args().folder
    with Parser(ParseLimits.of(Settings.model_validate({}))) as parser:
        outcomes = [judge(parser, folder, entry) for entry in read_manifest(folder)]
    print("\n".join(table(outcomes)))
    slowest = max(outcomes, key=lambda outcome: outcome.seconds)
    total = sum(outcome.seconds for outcome in outcomes)
    print(f"\n{total:.0f} s; the slowest took {slowest.seconds:.1f} s: {slowest.entry['path']}")
    for outcome in outcomes:
        if not outcome.is_expected:
            wrong = outcome.reason or f"missing {outcome.missing}, unwanted {outcome.unwanted}"
            print(f"{outcome.entry['path']}: {outcome.kind}: {wrong}", file=sys.stderr)


if __name__ == "__main__":
    main()
