"""Watching: which roots a burst makes due, and that neither errors nor vanished disks end it."""

import logging
import os
import shutil
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path

import pytest

from ingest import watch as watch_module
from ingest.watch import Batches, Listener, watch
from kb.errors import (
    ConfirmationNeededError,
    InvalidInputError,
    KnowledgeBaseDeletedError,
    StorageError,
)

Step = Collection[str] | Callable[[], object]


class Script:
    """Stands for the operating system: gives batches one by one, then interrupts.

    A step that is a function is called in between, as what happens meanwhile.
    """

    def __init__(self, *steps: Step) -> None:
        self._steps = list(steps)
        self.listened: list[list[str]] = []

    def __call__(self, folders: Sequence[str]) -> Batches:
        self.listened.append(list(folders))
        yield ()
        while self._steps:
            step = self._steps.pop(0)
            if callable(step):
                step()
            else:
                yield step
        raise KeyboardInterrupt


class Syncs:
    """Takes the place of a sync: remembers the names of the roots, fails where told to."""

    def __init__(self, *errors: Exception | None) -> None:
        self._errors = list(errors)
        self.seen: list[list[str]] = []

    def __call__(self, roots: Sequence[Path]) -> None:
        self.seen.append([root.name for root in roots])
        error = self._errors.pop(0) if self._errors else None
        if error is not None:
            raise error


@pytest.fixture
def roots(tmp_path: Path) -> list[Path]:
    for name in ("a", "b"):
        (tmp_path / name / "sub").mkdir(parents=True)
    return [tmp_path / "a", tmp_path / "b"]


def _run(roots: Sequence[Path], syncs: Syncs, script: Script, clock: object = None) -> list[str]:
    told: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        watch(
            roots,
            syncs,
            warn=told.append,
            listen=script,
            clock=clock or time.monotonic,  # type: ignore[arg-type]
        )
    return told


def test_all_roots_are_synced_first_and_then_those_that_a_burst_touches(
    roots: list[Path],
) -> None:
    a, b = roots
    syncs = Syncs()
    script = Script((), {f"{a}/x.txt"}, (), {f"{b}/sub/{n}.txt" for n in range(10_000)}, ())

    _run(roots, syncs, script)

    assert syncs.seen == [["a", "b"], ["a"], ["b"]]
    assert script.listened == [[str(a), f"{a}/sub", str(b), f"{b}/sub"]]


def test_changes_of_files_that_are_left_out_start_no_sync_but_rules_do(roots: list[Path]) -> None:
    a, _ = roots
    syncs = Syncs()

    _run(roots, syncs, Script({f"{a}/.x.swp", f"{a}/~$y.docx"}, {f"{a}/sub/.kbignore"}))

    assert syncs.seen == [["a", "b"], ["a"]]


def test_ignored_folders_and_links_are_not_listened_to(roots: list[Path], tmp_path: Path) -> None:
    a, _ = roots
    (a / ".git").mkdir()
    (a / "build").mkdir()
    (a / ".kbignore").write_text("build/\n")
    (a / "up").symlink_to(tmp_path)
    script = Script()

    _run([a], Syncs(), script)

    assert script.listened == [[str(a), f"{a}/sub"]]


def test_a_new_folder_is_listened_to_before_it_is_read(roots: list[Path]) -> None:
    a, _ = roots
    order: list[str] = []

    class Noting(Script):
        def __call__(self, folders: Sequence[str]) -> Batches:
            order.append(f"listen to {len(folders)}")
            return super().__call__(folders)

    def sync(_roots: Sequence[Path]) -> None:
        order.append("sync")

    script = Noting((a / "new").mkdir, {f"{a}/new"})
    with pytest.raises(KeyboardInterrupt):
        watch([a], sync, warn=order.append, listen=script)

    assert order == ["listen to 2", "sync", "listen to 3", "sync"]


def test_a_folder_that_was_removed_and_made_again_is_listened_to_anew(roots: list[Path]) -> None:
    a, _ = roots

    def make_again() -> None:
        shutil.rmtree(a / "sub")
        (a / "sub").mkdir()

    syncs, script = Syncs(), Script(make_again, {f"{a}/sub"}, ())
    _run([a], syncs, script)

    assert len(script.listened) == 2
    assert syncs.seen == [["a"], ["a"]]


def test_a_root_that_goes_and_comes_back_is_synced_without_any_event(roots: list[Path]) -> None:
    a, b = roots
    away = a.with_name("away")
    syncs = Syncs(None, ConfirmationNeededError("'a' is missing"))
    script = Script((), lambda: a.rename(away), (), (), lambda: away.rename(a), (), ())

    told = _run(roots, syncs, script)

    assert syncs.seen == [["a", "b"], ["a"], ["a"]]
    assert told == ["'a' is missing"]
    assert script.listened[1] == [str(b), f"{b}/sub"]
    assert len(script.listened) == 3


def test_one_root_that_must_not_be_synced_does_not_hold_up_another(roots: list[Path]) -> None:
    a, b = roots
    missing = ConfirmationNeededError("'a' is missing")
    syncs = Syncs(None, missing, missing, None)

    told = _run(roots, syncs, Script({f"{a}/x", f"{b}/y"}))

    assert syncs.seen == [["a", "b"], ["a", "b"], ["a"], ["b"]]
    assert told == ["'a' is missing"]


def test_the_first_sync_tells_the_guard_and_goes_on_but_fails_of_other_errors(
    roots: list[Path],
) -> None:
    syncs = Syncs(*[ConfirmationNeededError("'a' is missing")] * 3)
    assert _run(roots, syncs, Script()) == ["'a' is missing"] * 2

    with pytest.raises(InvalidInputError):
        watch(roots, Syncs(InvalidInputError("path", "wrong")), warn=print, listen=Script())


def test_errors_and_bugs_are_told_once_outlived_and_tried_again(
    roots: list[Path], caplog: pytest.LogCaptureFixture
) -> None:
    a, _ = roots
    now = iter(range(0, 10_000, 10))
    full = StorageError("the disk is full")
    syncs = Syncs(None, full, full, RuntimeError("bug"), None)
    script = Script({f"{a}/x"}, {f"{a}/y"}, *[()] * 20)

    with caplog.at_level(logging.CRITICAL):
        told = _run(roots, syncs, script, clock=lambda: float(next(now)))

    assert syncs.seen[:5] == [["a", "b"], ["a"], ["a"], ["a", "b"], ["a", "b"]]
    assert told[0] == "the disk is full"
    assert len(told) == 2
    assert "internal error (RuntimeError)" in told[1]


def test_all_roots_are_synced_now_and_then_without_any_event(roots: list[Path]) -> None:
    now = iter(range(0, 100_000, 100))
    syncs = Syncs()

    _run(roots, syncs, Script(*[()] * 14), clock=lambda: float(next(now)))

    assert syncs.seen == [["a", "b"]] * 3


def test_a_deleted_knowledge_base_ends_the_watching(roots: list[Path]) -> None:
    a, _ = roots
    with pytest.raises(KnowledgeBaseDeletedError):
        watch(
            roots,
            Syncs(None, KnowledgeBaseDeletedError("手册")),
            warn=print,
            listen=Script({f"{a}/x"}),
        )


def test_a_single_file_is_looked_at_and_survives_being_replaced(tmp_path: Path) -> None:
    file = tmp_path / "note.md"
    file.write_text("one")

    def replace() -> None:
        (tmp_path / "new").write_text("two")
        os.replace(tmp_path / "new", file)

    syncs, script = Syncs(), Script((), replace, (), ())
    _run([file], syncs, script)

    assert syncs.seen == [["note.md"], ["note.md"]]
    assert script.listened[0] == []


def test_where_listening_is_refused_folders_are_read_instead_with_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []

    def refuse(*folders: str, force_polling: bool | None, **_: object) -> Iterator[set[object]]:
        asked.append(force_polling)
        if not force_polling:
            raise OSError("OS file watch limit reached.")
        yield {(1, folders[0])}

    monkeypatch.setattr("watchfiles.watch", refuse)
    told: list[str] = []
    listener = Listener(told.append)

    assert list(listener([str(tmp_path)])) == [{str(tmp_path)}, {str(tmp_path)}]
    assert list(listener([str(tmp_path)])) == [{str(tmp_path)}]

    assert asked == [None, True, True]
    assert len(told) == 1
    assert "max_user_watches" in told[0]


@pytest.mark.slow
@pytest.mark.parametrize("is_polling", [False, True])
def test_real_files_are_seen_however_they_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_polling: bool
) -> None:
    """Saved in place, by renaming, in a new folder, and after the root was made again.

    Reading folders compares times in whole seconds, so there each change has to wait for one.
    """
    pause_s = 1.1 if is_polling else 0.0
    for name, value in (("QUIET_MS", 100), ("LOOK_MS", 200), ("POLL_MS", 100)):
        monkeypatch.setattr(watch_module, name, value)
    root = tmp_path / "docs"
    root.mkdir()
    seen: dict[str, str] = {}
    stop = threading.Event()

    def sync(_roots: Sequence[Path]) -> None:
        seen.clear()
        seen.update({p.name: p.read_text() for p in root.rglob("*.txt")} if root.exists() else {})

    def listen(folders: Sequence[str]) -> Batches:
        listener = Listener(print)
        listener._is_polling = is_polling
        for batch in listener(folders):
            if stop.is_set():
                raise KeyboardInterrupt
            yield batch

    def run() -> None:
        with pytest.raises(KeyboardInterrupt):
            watch([root], sync, warn=print, listen=listen)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        (root / "a.txt").write_text("one")
        _wait(lambda: seen == {"a.txt": "one"})
        time.sleep(pause_s)
        (root / "a.new").write_text("other")
        os.replace(root / "a.new", root / "a.txt")
        _wait(lambda: seen == {"a.txt": "other"})
        (root / "x" / "y").mkdir(parents=True)
        (root / "x" / "y" / "deep.txt").write_text("1")
        _wait(lambda: seen.get("deep.txt") == "1")
        time.sleep(pause_s)
        (root / "x" / "y" / "deep.txt").write_text("two")
        _wait(lambda: seen.get("deep.txt") == "two")
        shutil.rmtree(root)
        _wait(lambda: seen == {})
        root.mkdir()
        (root / "b.txt").write_text("again")
        _wait(lambda: seen == {"b.txt": "again"})
        (root / "c.txt").write_text("more")
        _wait(lambda: len(seen) == 2)
    finally:
        stop.set()
        thread.join(20)
    assert not thread.is_alive()


def _wait(condition: Callable[[], bool], timeout_s: float = 60.0) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "nothing was synced in time"
        time.sleep(0.05)
