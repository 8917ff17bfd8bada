"""The FAISS view of the change log: contract of VectorIndex, replay, snapshots, damage."""

import logging
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from kb.embedder import unit_rows
from kb.errors import IndexCorruptError
from kb.protocols import VectorIndex, Vectors
from kb.records import KnowledgeBase
from kb.retrieval.index import FLAT_CHUNKS, FaissIndex, IndexView, lists_for
from kb.storage.changes import append_changes, log_state, read_changes
from kb.storage.database import Database
from kb.storage.documents import remove_documents
from kb.storage.tables import ChangeRow, SnapshotRow
from tests.building import add_document, document_ids, make_base

DIMENSION = 64


class BruteForce:
    """The slow reference that FAISS must equal."""

    def __init__(self) -> None:
        self.rows: dict[int, Vectors] = {}

    def __len__(self) -> int:
        return len(self.rows)

    def add(self, ids: list[int], vectors: Vectors) -> None:
        self.rows.update(zip(ids, vectors, strict=True))

    def remove(self, ids: list[int]) -> None:
        for id_ in ids:
            self.rows.pop(id_, None)

    def search(self, vector: Vectors, top_k: int) -> list[tuple[int, float]]:
        scored = [(id_, float(row @ vector)) for id_, row in self.rows.items()]
        return sorted(scored, key=lambda pair: -pair[1])[:top_k]


def _rows(n: int, seed: int = 0) -> Vectors:
    rows = np.random.default_rng(seed).normal(size=(n, DIMENSION)).astype(np.float32)
    return unit_rows(rows).astype(np.float16).astype(np.float32)


def _in_lists(rows: Vectors, lists: int) -> FaissIndex:
    """Return an index in lists that holds nothing, trained on `rows`."""
    index = FaissIndex(DIMENSION)
    index.add(list(range(len(rows))), rows)
    arranged = index.arranged(lists)
    arranged.remove(list(range(len(rows))))
    return arranged


@pytest.mark.parametrize(
    "make", [BruteForce, lambda: FaissIndex(DIMENSION), lambda: _in_lists(_rows(200, 9), 4)]
)
class TestVectorIndexContract:
    def test_an_empty_index_finds_nothing(self, make) -> None:  # type: ignore[no-untyped-def]
        index: VectorIndex = make()

        assert len(index) == 0
        assert index.search(_rows(1)[0], 5) == []

    def test_the_nearest_comes_first(self, make) -> None:  # type: ignore[no-untyped-def]
        index: VectorIndex = make()
        rows = _rows(20)
        index.add(list(range(100, 120)), rows)

        found = index.search(rows[7], 3)

        assert found[0][0] == 107
        assert found[0][1] == pytest.approx(1.0, abs=2e-3)
        assert [score for _, score in found] == sorted((s for _, s in found), reverse=True)

    def test_removed_ids_are_not_found_and_unknown_ones_are_ignored(self, make) -> None:  # type: ignore[no-untyped-def]
        index: VectorIndex = make()
        rows = _rows(5)
        index.add([1, 2, 3, 4, 5], rows)

        index.remove([2, 99])

        assert len(index) == 4
        assert 2 not in [id_ for id_, _ in index.search(rows[1], 5)]

    def test_adding_an_id_again_replaces_its_vector(self, make) -> None:  # type: ignore[no-untyped-def]
        index: VectorIndex = make()
        rows = _rows(2)
        index.add([1], rows[:1])
        index.add([1], rows[1:])

        assert len(index) == 1
        assert index.search(rows[1], 1)[0][1] == pytest.approx(1.0, abs=2e-3)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["add", "remove", "reopen", "lists", "flat"]), st.integers(1, 30)
        ),
        max_size=60,
    ),
    st.integers(0, 5),
)
def test_faiss_equals_brute_force_after_any_adds_removes_reopens_and_changes_of_form(
    tmp_path_factory: pytest.TempPathFactory, operations: list[tuple[str, int]], seed: int
) -> None:
    """So few lists are all read by each search, so that nothing may be missing."""
    path = tmp_path_factory.mktemp("any") / "index.faiss"
    faiss_index, reference = FaissIndex(DIMENSION), BruteForce()
    rows = _rows(31, seed)
    for operation, id_ in operations:
        if operation == "add":
            faiss_index.add([id_], rows[id_ : id_ + 1])
            reference.add([id_], rows[id_ : id_ + 1])
        elif operation == "remove":
            faiss_index.remove([id_])
            reference.remove([id_])
        elif operation == "reopen":
            faiss_index.write(path)
            faiss_index = FaissIndex.read(path, DIMENSION)
        elif operation == "flat":
            faiss_index = faiss_index.arranged(0)
        elif len(faiss_index) > 1:
            faiss_index = faiss_index.arranged(min(4, len(faiss_index)))
    query = _rows(1, seed + 100)[0]

    found, expected = faiss_index.search(query, 5), reference.search(query, 5)

    assert [id_ for id_, _ in found] == [id_ for id_, _ in expected]
    assert [s for _, s in found] == pytest.approx([s for _, s in expected], abs=2e-3)
    assert sorted(faiss_index.ids()) == sorted(reference.rows)
    stored = dict(zip(faiss_index.ids(), faiss_index.vectors(), strict=True))
    assert all(np.array_equal(stored[id_], row) for id_, row in reference.rows.items())


def test_the_same_vectors_give_the_same_lists(tmp_path: Path) -> None:
    index = FaissIndex(DIMENSION)
    index.add(list(range(3000)), _rows(3000))

    index.arranged(8).write(tmp_path / "a")
    index.arranged(8).write(tmp_path / "b")

    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_lists_find_most_of_what_is_nearest_in_clustered_vectors() -> None:
    centres = _rows(300, 1)
    chance = np.random.default_rng(2)
    near = centres[chance.integers(300, size=12_000)]
    rows = unit_rows(near + 0.05 * chance.normal(size=near.shape)).astype(np.float32)
    index = FaissIndex(DIMENSION)
    index.add(list(range(len(rows))), rows)
    in_lists = index.arranged(lists_for(len(rows), 0, 10_000))
    assert in_lists.lists == 109

    shares = []
    for query in rows[::400]:
        exact = {id_ for id_, _ in index.search(query, 10)}
        shares.append(len(exact & {id_ for id_, _ in in_lists.search(query, 10)}) / 10)

    assert np.mean(shares) >= 0.95


def test_the_form_follows_the_size_and_does_not_swing() -> None:
    assert lists_for(FLAT_CHUNKS, 0) == 0
    made = lists_for(FLAT_CHUNKS + 1, 0)
    assert made == 316
    assert lists_for(FLAT_CHUNKS - 1, made) == made  # no way back at once
    assert lists_for(2 * made**2, made) == made
    assert lists_for(2 * made**2 + 1, made) == 446
    assert lists_for(FLAT_CHUNKS // 2, made) == 0
    assert lists_for(1_000_000, 0) == 1000


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.faiss"
    path.write_bytes(b"\x80\x04pickle me not")
    other = FaissIndex(32)
    other.write(tmp_path / "other.faiss")

    with pytest.raises(IndexCorruptError):
        FaissIndex.read(path, DIMENSION)
    with pytest.raises(IndexCorruptError):
        FaissIndex.read(tmp_path / "other.faiss", DIMENSION)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = Database.open(tmp_path)
    yield opened
    opened.close()


@pytest.fixture
def base(database: Database) -> KnowledgeBase:
    return make_base(database)


def _view(database: Database, base: KnowledgeBase, tmp_path: Path) -> IndexView:
    return IndexView(database, base, tmp_path / "index")


def test_a_view_follows_what_others_write(
    database: Database, base: KnowledgeBase, tmp_path: Path
) -> None:
    view = _view(database, base, tmp_path)
    assert view.open() == 0

    add_document(database, base, "a.txt", ["甲乙丙", "丁戊己"])
    assert view.open() == 2
    with database.write() as session:
        remove_documents(session, base.id, document_ids(session, base))

    assert view.open() == 0


def test_a_snapshot_and_the_tail_give_the_same_as_a_rebuild(
    database: Database, base: KnowledgeBase, tmp_path: Path
) -> None:
    writer = _view(database, base, tmp_path)
    add_document(database, base, "a.txt", ["first text", "second text"])
    writer.save()
    add_document(database, base, "b.txt", ["third text"])
    add_document(database, base, "a.txt", ["first text", "changed text"])

    from_snapshot = _view(database, base, tmp_path).contents()
    rebuilt = _view(database, base, tmp_path / "elsewhere").contents()

    assert sorted(from_snapshot[0]) == sorted(rebuilt[0])
    order, other = np.argsort(from_snapshot[0]), np.argsort(rebuilt[0])
    assert np.array_equal(from_snapshot[1][order], rebuilt[1][other])


@pytest.mark.parametrize("damage", ["truncate", "swap", "delete", "garbage"])
def test_a_damaged_snapshot_is_noticed_and_nothing_is_lost(
    database: Database,
    base: KnowledgeBase,
    tmp_path: Path,
    damage: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    add_document(database, base, "a.txt", [f"text number {i}" for i in range(20)])
    view = _view(database, base, tmp_path)
    view.save()
    expected = sorted(view.contents()[0])
    path = next((tmp_path / "index").glob("*.faiss"))
    if damage == "truncate":
        path.write_bytes(path.read_bytes()[:100])
    elif damage == "swap":
        FaissIndex(DIMENSION).write(path)
    elif damage == "delete":
        path.unlink()
    else:
        path.write_bytes(b"\0" * 5000)

    with caplog.at_level(logging.WARNING):
        found = sorted(_view(database, base, tmp_path).contents()[0])

    assert found == expected
    assert "nothing is lost" in caplog.text
    assert view.check_snapshots() != []


def test_old_snapshots_and_their_events_are_dropped_and_late_readers_reopen(
    database: Database, base: KnowledgeBase, tmp_path: Path
) -> None:
    late = _view(database, base, tmp_path)
    late.open()
    writer = _view(database, base, tmp_path)
    for i in range(4):
        add_document(database, base, f"{i}.txt", [f"content of file {i}"])
        writer.save()

    with database.read() as session:
        snapshots = session.scalars(select(SnapshotRow)).all()
        state = log_state(session, base.id)
        oldest_event = session.scalar(select(ChangeRow.seq).order_by(ChangeRow.seq).limit(1))
    assert len(snapshots) == 2
    assert state is not None
    assert state.floor == min(s.seq for s in snapshots)
    assert oldest_event == state.floor + 1
    assert len(list((tmp_path / "index").iterdir())) == 2
    assert late.open() == 4


def test_the_last_event_of_a_chunk_wins_and_lost_chunks_are_skipped(
    database: Database, base: KnowledgeBase
) -> None:
    add_document(database, base, "a.txt", ["one", "two"])
    with database.write() as session:
        append_changes(session, base.id, added=[10**6], removed=[])

    with database.read() as session:
        replay = read_changes(session, base.id, 0)

    assert len(replay.added_ids) == 2
    assert 10**6 not in replay.added_ids
    assert replay.seq == 3


def test_two_bases_do_not_share_an_index(database: Database, tmp_path: Path) -> None:
    first = make_base(database, "first")
    second = make_base(database, "second")
    add_document(database, first, "a.txt", ["only in the first"])

    assert _view(database, first, tmp_path / "1").open() == 1
    assert _view(database, second, tmp_path / "2").open() == 0


# Forms: a small threshold in place of `FLAT_CHUNKS`

FLAT = 40


def _small(database: Database, base: KnowledgeBase, tmp_path: Path) -> IndexView:
    return IndexView(database, base, tmp_path / "index", flat_chunks=FLAT)


def _fill(database: Database, base: KnowledgeBase, name: str, n: int) -> None:
    add_document(database, base, name, [f"{name} holds text number {i}" for i in range(n)])


def _form(view: IndexView) -> int:
    view.open()
    assert view._held is not None
    return view._held.index.lists


def test_a_base_that_outgrows_the_flat_form_is_arranged_when_it_is_saved(
    database: Database, base: KnowledgeBase, tmp_path: Path
) -> None:
    view = _small(database, base, tmp_path)
    _fill(database, base, "a.txt", FLAT + 1)
    assert _form(view) == 0  # opening never trains

    view.save()

    assert _form(view) == 6
    assert _form(_small(database, base, tmp_path)) == 6
    _fill(database, base, "b.txt", 100)
    view.save()
    assert _form(view) == 11
    with database.write() as session:
        remove_documents(session, base.id, document_ids(session, base)[1:])
    add_document(database, base, "a.txt", ["only this is left"])
    view.save()
    assert _form(view) == 0
    assert view.open() == 1


def test_a_snapshot_of_the_other_form_is_used_as_it_is(
    database: Database, base: KnowledgeBase, tmp_path: Path
) -> None:
    """Written by a version, or under a rule, that chose another form for this size."""
    _fill(database, base, "a.txt", FLAT + 1)
    _view(database, base, tmp_path).save()
    flat = _small(database, base, tmp_path)
    assert _form(flat) == 0
    flat.save()

    in_lists = _view(database, base, tmp_path)

    assert _form(in_lists) == 6
    expected = _view(database, base, tmp_path / "elsewhere").contents()[0]
    assert sorted(in_lists.contents()[0]) == expected


def test_a_view_changes_to_the_form_that_another_process_saved(
    database: Database, base: KnowledgeBase, tmp_path: Path
) -> None:
    serving = _small(database, base, tmp_path)
    _fill(database, base, "a.txt", FLAT + 1)
    query = _rows(1)[0]
    expected = serving.search(query, 5)
    assert _form(serving) == 0
    _small(database, base, tmp_path).save()

    found = serving.search(query, 5)

    assert _form(serving) == 6
    assert found == expected


def test_a_damaged_newer_snapshot_leaves_a_view_with_the_form_it_has(
    database: Database, base: KnowledgeBase, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    serving = _small(database, base, tmp_path)
    _fill(database, base, "a.txt", FLAT + 1)
    query = _rows(1)[0]
    expected = serving.search(query, 5)
    _small(database, base, tmp_path).save()
    _damage(next((tmp_path / "index").glob("*.faiss")), "flip")

    assert serving.search(query, 5) == expected
    assert serving.search(query, 5) == expected
    assert caplog.text.count("going on") == 1


@pytest.mark.parametrize("damage", ["truncate", "flip", "delete", "garbage"])
def test_a_damaged_snapshot_in_lists_is_refused_and_made_again(
    database: Database, base: KnowledgeBase, tmp_path: Path, damage: str
) -> None:
    _fill(database, base, "a.txt", FLAT + 1)
    view = _small(database, base, tmp_path)
    view.save()
    expected = view.contents()[0]
    _damage(next((tmp_path / "index").glob("*.faiss")), damage)

    opened = _small(database, base, tmp_path)

    assert _form(opened) == 0
    assert sorted(opened.contents()[0]) == sorted(expected)
    assert len(opened.check_snapshots()) == 1
    opened.save()
    assert _form(_small(database, base, tmp_path)) == 6


def _damage(path: Path, how: str) -> None:
    whole = bytearray(path.read_bytes())
    if how == "truncate":
        path.write_bytes(whole[: len(whole) // 2])
    elif how == "delete":
        path.unlink()
    elif how == "garbage":
        path.write_bytes(b"\0" * 5000)
    else:
        whole[len(whole) // 2] ^= 1
        path.write_bytes(whole)


def test_a_residual_index_is_refused(tmp_path: Path) -> None:
    """Its scores would be of vectors less their centres."""
    import faiss

    centres = faiss.IndexFlatIP(DIMENSION)
    other = faiss.IndexIVFScalarQuantizer(
        centres, DIMENSION, 4, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT, True
    )
    other.train(_rows(200))
    faiss.write_index(other, str(tmp_path / "residual.faiss"))

    with pytest.raises(IndexCorruptError):
        FaissIndex.read(tmp_path / "residual.faiss", DIMENSION)


_OTHER_PROCESS = """
import sys
from pathlib import Path
from kb.retrieval.index import IndexView
from kb.storage.bases import find_base
from kb.storage.database import Database
from tests.building import add_document

home = Path(sys.argv[1])
database = Database.open(home)
with database.read() as session:
    base = find_base(session, "test")
add_document(database, base, "b.txt", [f"of the other process {i}" for i in range(30)])
view = IndexView(database, base, home / "index", flat_chunks=40)
view.save()
add_document(database, base, "c.txt", ["after its snapshot"])
print(view.open(), view._held.index.lists)
"""


def test_two_processes_see_each_other_across_a_change_of_form(
    database: Database, base: KnowledgeBase, tmp_path: Path
) -> None:
    view = _small(database, base, tmp_path)
    _fill(database, base, "a.txt", FLAT - 10)
    assert view.open() == 30

    done = subprocess.run(
        [sys.executable, "-c", _OTHER_PROCESS, str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
    )
    found = view.search(_rows(1)[0], 100)

    assert done.stdout.split() == ["61", "7"]
    assert len(found) == 61
    view.search(_rows(1)[0], 1)
    assert _form(view) == 7


def test_a_long_replay_goes_in_steps_and_ends_at_the_same_contents(
    database: Database, base: KnowledgeBase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    view = _view(database, base, tmp_path)
    view.open()
    for i in range(6):
        add_document(database, base, f"{i % 4}.txt", [f"text {i} {j}" for j in range(5)])
    monkeypatch.setattr("kb.retrieval.index.REPLAYED_EVENTS", 3)

    followed = view.contents()[0]

    assert sorted(followed) == _view(database, base, tmp_path / "elsewhere").contents()[0]
    assert len(followed) == 20


def test_searches_go_on_with_the_old_index_while_a_snapshot_is_written(
    database: Database, base: KnowledgeBase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    view = _small(database, base, tmp_path)
    _fill(database, base, "a.txt", FLAT + 1)
    view.open()
    writing, searched = threading.Event(), threading.Event()
    write = FaissIndex.write

    def wait_for_a_search(index: FaissIndex, path: Path) -> None:
        write(index, path)
        writing.set()
        assert searched.wait(30)

    monkeypatch.setattr(FaissIndex, "write", wait_for_a_search)
    saving = threading.Thread(target=view.save)
    saving.start()
    assert writing.wait(30)

    add_document(database, base, "b.txt", ["written meanwhile"])
    found = view.search(_rows(1)[0], 100)
    searched.set()
    saving.join()

    assert len(found) == FLAT + 2
    assert len(view.search(_rows(1)[0], 100)) == FLAT + 2
    assert _form(view) == 6


def test_a_small_sync_writes_no_snapshot_of_a_large_base(
    database: Database, base: KnowledgeBase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kb.retrieval.index.SNAPSHOT_AFTER_EVENTS", 4)
    monkeypatch.setattr("kb.retrieval.index.SNAPSHOT_AFTER_SHARE", 1 / 2)
    view = _view(database, base, tmp_path)
    assert not view.save_if_worthwhile()
    _fill(database, base, "a.txt", 20)
    assert view.save_if_worthwhile()
    assert not view.save_if_worthwhile()

    _fill(database, base, "b.txt", 9)
    assert not view.save_if_worthwhile()
    _fill(database, base, "c.txt", 1)
    assert view.save_if_worthwhile()


def test_a_lost_snapshot_of_a_large_base_is_written_again(
    database: Database, base: KnowledgeBase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kb.retrieval.index.SNAPSHOT_AFTER_EVENTS", 4)
    _fill(database, base, "a.txt", 20)
    view = _view(database, base, tmp_path)
    view.save()
    for path in (tmp_path / "index").iterdir():
        path.unlink()

    assert view.save_if_worthwhile()
    assert not view.save_if_worthwhile()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_an_index_that_cannot_be_written_to_its_last_byte_is_an_error() -> None:
    index = FaissIndex(DIMENSION)
    index.add([1], _rows(1))  # so small that it is written when the file is closed

    with pytest.raises((OSError, RuntimeError)):
        index.write(Path("/dev/full"))
