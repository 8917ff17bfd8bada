"""Kill the program again and again, and check that nothing is lost, doubled or left over.

    python -m benchmarks.kill_ingest --kills 200 --signals 20 --real 2

Each round starts one piece of work on a data folder in a child process: the first ingest, an ingest
of a changed folder, a move to another embedder, an upgrade of the database, a removal, or a removal
with --prove. The child dies at a named failpoint (`--kills`, as by a power cut) or by SIGKILL after
a random time (`--signals`). Then `kb verify` must be clean; the same work runs again, to its end;
`kb verify` must be clean again, and documents, chunks, texts and hits must equal those of a run
that was never interrupted. The fake embedder is used but for `--real` of the signals.
"""

import argparse
import random
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.drills import (
    BASE,
    State,
    differences,
    in_child,
    open_services,
    run_command,
    state_of,
    use_next_schema,
    warm_up,
    write_folder,
)
from kb import failpoints

KILLED = 137
# The document that is removed, and a string that only it holds.
REMOVED = "文件0.md"

# What can be interrupted, and the failpoints on its way; some are passed several times.
MIGRATION = ("migration.backed-up", "migration.upgrading", "migration.upgraded")
INDEX = ("index.written", "index.renamed", "index.named")
WORK: dict[str, tuple[str, ...]] = {
    "first ingest": (*MIGRATION, "sync.parsed", "sync.writing", "index.written"),
    "ingest": (
        *(place for place in failpoints.PLACES if place.startswith("sync.")),
        "documents.removing",
        *INDEX,
    ),
    "move": ("move.stored", "move.swapping", "move.swapped", *INDEX),
    "upgrade": MIGRATION,
    "remove": ("documents.removing", "documents.swept"),
    "erase": (
        "documents.removing",
        *(place for place in failpoints.PLACES if place.startswith("erase.")),
        *INDEX,
    ),
}
PASSED_OFTEN = frozenset({"sync.parsed", "sync.writing", "sync.written"})


@dataclass(frozen=True, slots=True)
class Round:
    """What one kill did: where, whether it hit, and what was wrong afterwards."""

    work: str
    place: str
    was_killed: bool
    problems: tuple[str, ...]


class Drill:
    """A folder, a data folder before each piece of work, and the end states to reach."""

    def __init__(self, scratch: Path, n_files: int, *, is_real: bool = False) -> None:
        self.scratch = scratch
        self.is_real = is_real
        self.folder = scratch / "docs"
        self.before = scratch / "before"
        scratch.mkdir(parents=True, exist_ok=True)
        warm_up()
        write_folder(self.folder, 0, n_files)
        self._must(lambda: self._ingest(self.before))
        write_folder(self.folder, 1, n_files)
        self.ends: dict[str, State] = {}
        self.seconds: dict[str, float] = {}

    def run(self, work: str, place: str = "", passes: int = 0, share: float = 0) -> Round:
        """Interrupt `work` at a failpoint, or after a share of its time; then finish it."""
        if work not in self.ends:
            self._run_clean(work)
        home = self._fresh_home(work)
        ran = in_child(
            lambda: self._work(work, home, place, passes),
            self.scratch,
            kill_after_s=share * self.seconds[work],
        )
        was_killed = ran.code in (KILLED, -signal.SIGKILL)
        problems: list[str] = []
        if not was_killed and ran.code != 0:
            problems.append(f"ended with {ran.code}: {ran.err[-300:]}")
        if (home / "kb.sqlite3").exists():
            torn = self._state(work, home)
            problems += [f"right after the kill: {problem}" for problem in torn.problems]
        again = in_child(lambda: self._work(work, home, again=True), self.scratch)
        if again.code != 0:
            problems.append(f"the second run ended with {again.code}: {again.err[-300:]}")
        problems += differences(self._state(work, home), self.ends[work])
        if work == "erase":
            problems += _holding(home, self._secret())
        name = place or f"SIGKILL at {share:.2f} of {self.seconds[work]:.1f} s"
        return Round(work, name, was_killed, tuple(problems))

    def _run_clean(self, work: str) -> None:
        home = self._fresh_home(work)
        ran = in_child(lambda: self._work(work, home), self.scratch)
        assert ran.code == 0, ran
        self.seconds[work] = ran.seconds
        self.ends[work] = self._state(work, home)
        assert self.ends[work].rows
        assert not self.ends[work].problems

    def _fresh_home(self, work: str) -> Path:
        home = self.scratch / "home"
        shutil.rmtree(home, ignore_errors=True)
        if work != "first ingest":
            shutil.copytree(self.before, home)
        return home

    def _work(
        self, work: str, home: Path, place: str = "", passes: int = 0, *, again: bool = False
    ) -> int:
        if place:
            failpoints.arm(place, passes)
        if work == "upgrade":
            use_next_schema(self.scratch / "next")
            self._open(home)
            return 0
        if work in ("first ingest", "ingest"):
            return self._ingest(home)
        if work == "move":
            return self._move(home)
        prove = ("--prove",) if work == "erase" else ()
        code = run_command(home, "docs", "remove", REMOVED, "--kb", BASE, "--yes", *prove)
        if again and code == 1:  # it was removed before the kill; what is left of it goes now
            return run_command(home, "docs", "remove", "--prove")
        return code

    def _ingest(self, home: Path) -> int:
        code = run_command(
            home, "ingest", str(self.folder), "--kb", BASE, "--yes", is_real=self.is_real
        )
        return 0 if code == 1 else code  # one file of the folder is bad on purpose

    def _move(self, home: Path) -> int:
        from ingest.fake import FakeEmbedder
        from ingest.reembed import ReembedOptions
        from kb.storage.bases import find_base

        with open_services(home) as services:
            with services.database.read() as session:
                base = find_base(session, BASE)
            services.reembed(base, FakeEmbedder(96), ReembedOptions())
        return 0

    def _open(self, home: Path) -> None:
        open_services(home).close()

    def _must(self, work: Callable[[], int]) -> None:
        ran = in_child(work, self.scratch)
        assert ran.code == 0, ran

    def _state(self, work: str, home: Path) -> State:
        def prepare() -> None:
            if work == "upgrade":
                use_next_schema(self.scratch / "next")

        return state_of(home, self.scratch, prepare=prepare)

    def _secret(self) -> bytes:
        text = (self.folder / REMOVED).read_text(encoding="utf-8")
        return text[text.index("设备") :][:11].encode()


def _holding(home: Path, secret: bytes) -> list[str]:
    return [
        f"{path.relative_to(home)} holds text of the erased document"
        for path in home.rglob("*")
        if path.is_file() and secret in path.read_bytes()
    ]


def places() -> list[tuple[str, str]]:
    """Return every piece of work with every failpoint on its way."""
    return [(work, place) for work, on_the_way in WORK.items() for place in on_the_way]


def run_rounds(
    kills: Sequence[tuple[str, str]],
    n_signals: int,
    n_real: int = 0,
    *,
    n_files: int = 14,
    seed: int = 1,
) -> list[Round]:
    """Run the rounds: kills at (work, failpoint), then signals over all kinds of work."""
    chance = random.Random(seed)
    rounds: list[Round] = []

    def note(made: Round) -> None:
        rounds.append(made)
        print(f"{len(rounds)}/{len(kills) + n_signals} {made}", file=sys.stderr, flush=True)

    with tempfile.TemporaryDirectory() as name:
        drill = Drill(Path(name, "fake"), n_files)
        for work, place in kills:
            passes = chance.choice([0, 1, 2, 3]) if place in PASSED_OFTEN else 0
            note(drill.run(work, place, passes))
        kinds = list(WORK)
        for i in range(n_signals - n_real):
            note(drill.run(kinds[i % len(kinds)], share=chance.uniform(0.02, 1)))
        if n_real:
            drill = Drill(Path(name, "real"), n_files, is_real=True)
            for i in range(n_real):
                work = ("first ingest", "ingest")[i % 2]
                note(drill.run(work, share=chance.uniform(0.1, 1)))
    return rounds


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=40, help="rounds that die at a failpoint")
    parser.add_argument("--signals", type=int, default=5, help="rounds with SIGKILL at any time")
    parser.add_argument("--real", type=int, default=0, help="of these, with the real embedder")
    parser.add_argument("--at", action="append", default=[], help="WORK:FAILPOINT to die at")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    kills = [(work, place) for work, _, place in (at.partition(":") for at in options.at)]
    kills = kills or [places()[i % len(places())] for i in range(options.kills)]
    rounds = run_rounds(kills, options.signals, options.real, seed=options.seed)
    for work in WORK:
        of_work = [r for r in rounds if r.work == work]
        print(
            f"{work}: {len(of_work)} rounds, {sum(r.was_killed for r in of_work)} killed, "
            f"{sum(bool(r.problems) for r in of_work)} with problems"
        )
    n_bad = sum(1 for r in rounds if r.problems)
    n_killed = sum(1 for r in rounds if r.was_killed)
    print(f"{len(rounds)} rounds, {n_killed} killed before the end, {n_bad} with problems")
    return 1 if n_bad else 0


if __name__ == "__main__":
    sys.exit(main())
