"""The FAISS view of the change log: contract of VectorIndex, replay, snapshots, damage."""

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from kb.embedder import unit_rows
from kb.errors import IndexCorruptError
from kb.index import FaissIndex, IndexView
from kb.protocols import VectorIndex, Vectors
from kb.records import KnowledgeBase
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


@pytest.mark.parametrize("make", [BruteForce, lambda: FaissIndex(DIMENSION)])
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


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(1, 30)), max_size=60), st.integers(0, 5))
def test_faiss_equals_brute_force_after_any_adds_and_removes(
    operations: list[tuple[bool, int]], seed: int
) -> None:
    faiss_index, reference = FaissIndex(DIMENSION), BruteForce()
    rows = _rows(31, seed)
    for is_add, id_ in operations:
        for index in (faiss_index, reference):
            if is_add:
                index.add([id_], rows[id_ : id_ + 1])
            else:
                index.remove([id_])
    query = _rows(1, seed + 100)[0]

    found, expected = faiss_index.search(query, 5), reference.search(query, 5)

    assert [id_ for id_, _ in found] == [id_ for id_, _ in expected]
    assert [s for _, s in found] == pytest.approx([s for _, s in expected], abs=2e-3)


def test_vectors_come_back_exactly_as_stored() -> None:
    index = FaissIndex(DIMENSION)
    rows = _rows(10)
    index.add(list(range(10)), rows)

    assert np.array_equal(index.vectors(), rows)


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


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_an_index_that_cannot_be_written_to_its_last_byte_is_an_error() -> None:
    index = FaissIndex(DIMENSION)
    index.add([1], _rows(1))  # so small that it is written when the file is closed

    with pytest.raises((OSError, RuntimeError)):
        index.write(Path("/dev/full"))
