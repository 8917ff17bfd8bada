"""Feed damaged files to the real parser, and see that each ends in a text or a clear error.

    python -m benchmarks.fuzz_loaders --cases 2000 --samples DIR

Each case is a sample file that was cut, changed in some bits, mixed with another, changed inside
its archive, or given another extension, or random bytes under any extension. The cases follow
from the seed. Without `--samples` the files that the tests make are used. Old Word and PowerPoint
files are left out: they go through LibreOffice, which takes seconds for each.

Prints outcomes by kind, the slowest files, and the trace of each error that a loader did not
foresee: the owner is told that the file may be damaged, but it is a gap to close. Exits with 1 if
the parser itself raised anything but a `LoadError`, or a file outlived its time limit.
"""

import argparse
import io
import logging
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from zipfile import ZIP_DEFLATED, BadZipFile, ZipFile

from ingest.loaders import LOADERS, extension
from ingest.loaders.base import ParseLimits
from ingest.loaders.libreoffice import NEW_FORMATS
from ingest.parser import Parser
from kb.errors import LoadError

LIMITS = ParseLimits(
    timeout_s=30,
    memory_mb=1024,
    max_file_mb=50,
    max_pages=1000,
    max_cells=500_000,
    max_text_chars=10_000_000,
)
# Over the limit, until the child is killed and the answer is here; busy machines need more.
GRACE_S = 15
MAX_SAMPLE_BYTES = 5_000_000
SLOWEST = 5
SHOWN_TRACE_LINES = 12
# All extensions of source code are read alike; one stands for them.
EXTENSIONS = sorted(
    suffix
    for suffix, (module, _) in LOADERS.items()
    if suffix not in NEW_FORMATS and (module != "code" or suffix == ".py")
)


@dataclass(frozen=True, slots=True)
class Sample:
    suffix: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Case:
    label: str
    suffix: str
    data: bytes


@dataclass(slots=True)
class Tally:
    """What has come out so far."""

    outcomes: Counter[str] = field(default_factory=Counter)
    traces: Counter[str] = field(default_factory=Counter)
    times: list[tuple[float, str]] = field(default_factory=list)
    escaped: list[str] = field(default_factory=list)
    hangs: list[str] = field(default_factory=list)


# Cases


def make_cases(samples: list[Sample], n_cases: int, seed: int) -> Iterator[Case]:
    """Yield the cases of a seed; every sample has its turn."""
    chance = random.Random(seed)
    changes: dict[str, Callable[[random.Random, Sample, list[Sample]], bytes]] = {
        "cut": _cut,
        "flipped": _flipped,
        "spliced": _spliced,
        "inner": _inner,
        "swapped": lambda _chance, sample, _samples: sample.data,
    }
    for number in range(n_cases):
        if number % 10 == 9:
            yield Case(
                "random", chance.choice(EXTENSIONS), chance.randbytes(chance.randrange(5000))
            )
            continue
        sample = samples[number % len(samples)]
        label = chance.choice(list(changes))
        suffix = chance.choice(EXTENSIONS) if label == "swapped" else sample.suffix
        yield Case(label, suffix, changes[label](chance, sample, samples))


def _cut(chance: random.Random, sample: Sample, _samples: list[Sample]) -> bytes:
    return sample.data[: chance.randrange(len(sample.data) + 1)]


def _flipped(chance: random.Random, sample: Sample, _samples: list[Sample]) -> bytes:
    changed = bytearray(sample.data)
    for _ in range(chance.choice((1, 3, 10, 100))):
        if changed:
            changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def _spliced(chance: random.Random, sample: Sample, samples: list[Sample]) -> bytes:
    """Put a piece of a file into another, or of the file into itself."""
    other = chance.choice((sample, chance.choice(samples))).data
    start = chance.randrange(len(other) + 1)
    piece = other[start : start + chance.choice((4, 100, 5000))]
    at = chance.randrange(len(sample.data) + 1)
    end = at + chance.choice((0, len(piece), 1000))
    return sample.data[:at] + piece * chance.choice((1, 1, 50)) + sample.data[end:]


def _inner(chance: random.Random, sample: Sample, samples: list[Sample]) -> bytes:
    """Change a member of an archive, whose checksum hides most changes from the loaders."""
    try:
        with ZipFile(io.BytesIO(sample.data)) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
    except (BadZipFile, RuntimeError, OSError):
        return _flipped(chance, sample, samples)
    if not members:
        return sample.data
    chosen = chance.choice(
        [name for name in members if name.endswith((".xml", "ml"))] or [*members]
    )
    change = chance.choice((_flipped, _spliced, _cut))
    members[chosen] = change(chance, Sample(sample.suffix, members[chosen]), samples)
    if chance.random() < 0.2:
        del members[chance.choice([*members])]
    out = io.BytesIO()
    with ZipFile(out, "w", ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return out.getvalue()


def read_samples(folder: Path) -> list[Sample]:
    """Return the files below a folder that a loader reads."""
    samples = []
    for path in sorted(folder.rglob("*")):
        suffix = extension(path.name)
        if path.is_file() and suffix in EXTENSIONS and 0 < path.stat().st_size < MAX_SAMPLE_BYTES:
            samples.append(Sample(suffix, path.read_bytes()))
    return samples


def made_samples() -> list[Sample]:
    """Return a few files of many formats, as the tests make them."""
    from tests.ingest import files_samples, office_samples

    mail = "From: a@b.c\nSubject: s\nMIME-Version: 1.0\nContent-Type: text/html\n\n<p>好</p>"
    texts = {
        ".txt": "第一章 总则\n年假十天。",
        ".md": "# 标题\n\n- 一\n",
        ".rst": "标题\n====\n\n正文\n",
        ".html": "<h1>题</h1><p hidden>x</p><table><tr><th>a<th>b<tr><td>1<td>2</table>",
        ".csv": "甲,乙\n1,2\n",
        ".json": '{"名称": [{"a": 1}, {"b": [2, 3]}]}',
        ".jsonl": '{"a": 1}\n{"a": 2}\n',
        ".ipynb": '{"cells": [{"cell_type": "markdown", "source": ["# 题"]}]}',
        ".eml": mail,
        ".rtf": r"{\rtf1\ansi\ansicpg936{\fonttbl{\f0\fcharset134 a;}}\f0 \'c4\'ea\par}",
    }
    workbook = office_samples.xlsx(lambda book: book.active.append(("甲", 1)))
    slides = office_samples.pptx(lambda show: show.slides.add_slide(show.slide_layouts[0]))
    return [
        *(Sample(suffix, text.encode()) for suffix, text in texts.items()),
        Sample(".pdf", files_samples.pdf([["年假十天。"], ["第二页"]])),
        Sample(".docx", files_samples.docx()),
        Sample(".xlsx", workbook),
        Sample(".xls", office_samples.xls({(0, 0): "甲", (1, 0): 1.5})),
        Sample(".pptx", slides),
        Sample(".odt", office_samples.odt("<text:p>年假</text:p>")),
        Sample(".msg", office_samples.msg({"0037": "主题".encode("utf-16-le")})),
    ]


# Running them


def run_case(parser: Parser, case: Case, path: Path, tally: Tally, traces: list[str]) -> None:
    path.write_bytes(case.data)
    name = f"{case.label}{case.suffix}"
    traces.clear()
    started = time.monotonic()
    try:
        document = parser.load(path, name)
        outcome = "text" if document.text.strip() else "empty"
    except LoadError as exc:
        outcome = type(exc).__name__
        if "takes longer than" in str(exc) or "MB of memory" in str(exc):
            outcome = f"killed: {' '.join(str(exc).split()[:5])}"
        elif "made the parser crash" in str(exc):
            outcome = "killed: crashed"
        elif not str(exc).strip():
            tally.escaped.append(f"{name}: {outcome} without a message")
    except Exception as exc:  # noqa: BLE001  finding these is what this program is for
        outcome = f"escaped: {type(exc).__name__}"
        tally.escaped.append(f"{name}: {exc!r}")
    seconds = time.monotonic() - started
    if seconds > LIMITS.timeout_s + GRACE_S:
        tally.hangs.append(f"{name}: {seconds:.0f} s")
    for trace in traces:
        outcome = "unforeseen"
        lines = trace.strip().split("\n")
        tally.traces["\n".join([f"[{case.suffix}]", *lines[-SHOWN_TRACE_LINES:]])] += 1
    tally.outcomes[outcome] += 1
    tally.times.append((seconds, f"{name}, {len(case.data):,} bytes: {outcome}"))


class _Traces(logging.Handler):
    """Keeps the traces that the parser logs of errors that no loader foresaw."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.traces: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.traces.append(record.getMessage())


def main() -> int:
    description = (__doc__ or "").split("\n", 1)[0]
    options = argparse.ArgumentParser(description=description)
    options.add_argument("--cases", type=int, default=2000)
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--samples", type=Path, help="a folder of files to damage")
    options.add_argument("--keep", type=Path, help="a folder for the files not foreseen")
    chosen = options.parse_args()
    samples = read_samples(chosen.samples) if chosen.samples else made_samples()
    if not samples:
        print(f"no file below {chosen.samples} can be read", file=sys.stderr)
        return 2
    handler = _Traces()
    logger = logging.getLogger("ingest.parser")
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    tally = Tally()
    with tempfile.TemporaryDirectory(prefix="kb-fuzz-") as folder, Parser(LIMITS) as parser:
        for case in make_cases(samples, chosen.cases, chosen.seed):
            path = Path(folder, "file")
            run_case(parser, case, path, tally, handler.traces)
            if chosen.keep and (handler.traces or "killed" in tally.times[-1][1]):
                chosen.keep.mkdir(parents=True, exist_ok=True)
                kept = chosen.keep / f"{tally.outcomes.total()}{case.suffix}"
                kept.write_bytes(case.data)
    print(f"{chosen.cases} cases of {len(samples)} samples, seed {chosen.seed}")
    for outcome, n in tally.outcomes.most_common():
        print(f"{n:7}  {outcome}")
    print("slowest:")
    for seconds, what in sorted(tally.times, reverse=True)[:SLOWEST]:
        print(f"{seconds:7.1f} s  {what}")
    for trace, n in tally.traces.most_common():
        print(f"\nunforeseen, {n} times:\n{trace}")
    for problem in (*tally.escaped, *tally.hangs):
        print(f"PROBLEM: {problem}")
    return 1 if tally.escaped or tally.hangs else 0


if __name__ == "__main__":
    sys.exit(main())
