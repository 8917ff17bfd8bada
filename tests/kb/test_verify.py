"""`kb verify` notices every kind of damage, and repairs what the database can give back."""

import hashlib
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import delete, insert, select, text, update

from ingest.fake import FakeEmbedder
from ingest.prepare import prepare
from ingest.resplit import resplit, resplit_documents
from ingest.splitter import SPLITTER
from ingest.sync import SyncOptions, sync_folders
from kb.errors import StorageError
from kb.records import Flag, KnowledgeBase, Question
from kb.storage import sqlite as sqlite_storage
from kb.storage.bases import find_base, find_or_add_source
from kb.storage.documents import find_document, write_document
from kb.storage.embeddings import store_embeddings
from kb.storage.jobs import create_job
from kb.storage.tables import (
    ChunkRow,
    DocumentRow,
    DocumentVersionRow,
    EmbeddingRow,
    JobRow,
    KnowledgeBaseRow,
)
from kb.storage.trace_reads import read_trace
from kb.upkeep.repair import verify_and_repair
from kb.upkeep.verify import VerifyReport, verify
from kb.wiring import Services
from tests.building import add_document, document_ids, make_base, open_services, prepared

# A stored answer; the place is for what its request holds.
ADD_TRACE = (
    "INSERT INTO trace (id, question, answer, refused, support, model, timings, is_redacted, "
    "created_at, has_foreign_text, request) "
    "VALUES ('t', 'q', 'a', 0, 1.0, 'm', '{{}}', 0, '', 0, {})"
)


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    with open_services(tmp_path / "home") as opened:
        yield opened


@pytest.fixture
def base(services: Services) -> KnowledgeBase:
    base = make_base(services.database)
    add_document(services.database, base, "a.txt", ["泵每周检查。", "阀门每月检查。"])
    add_document(services.database, base, "b.txt", ["The pump room is closed."])
    services.retriever.view(base).save()
    return base


def _verify(services: Services) -> VerifyReport:
    return verify(services.database, services.retriever, services.blobs, splitter=SPLITTER)


def _kinds(services: Services) -> set[str]:
    return {problem.kind for problem in _verify(services).problems}


def _repair(services: Services) -> list[str]:
    """Mend as `kb verify --repair` does."""
    report = verify_and_repair(
        services.database,
        services.retriever,
        services.blobs,
        splitter=SPLITTER,
        resplit_old=lambda: resplit(services.sync_parts),
        resplit_documents=lambda ids: resplit_documents(services.sync_parts, ids),
    )
    return list(report.repaired)


def test_a_sound_base_has_no_problems(services: Services, base: KnowledgeBase) -> None:
    report = _verify(services)

    assert report.ok
    assert (report.documents, report.chunks) == (2, 3)


def test_missing_full_text_is_noticed_and_made_again(
    services: Services, base: KnowledgeBase
) -> None:
    with services.database.write() as session:
        sqlite_storage.delete_fulltext(session, base.id, [1])
    report = _verify(services)

    done = _repair(services)

    assert {problem.kind for problem in report.problems} == {"fulltext"}
    assert len(done) == 1
    assert _verify(services).ok
    hits = services.retriever.search(Question("泵 检查", (base.name,), 3, "lexical")).hits
    assert hits[0].document == "a.txt"


def test_another_full_text_version_is_noticed_and_made_again(
    services: Services, base: KnowledgeBase
) -> None:
    with services.database.write() as session:
        session.execute(update(KnowledgeBaseRow).values(fulltext="old/0"))

    report = _verify(services)
    _repair(services)

    assert {problem.kind for problem in report.problems} == {"fulltext-version"}
    assert _verify(services).ok


def test_a_damaged_snapshot_is_noticed_and_made_again(
    services: Services, base: KnowledgeBase
) -> None:
    path = next((services.settings.home / "index" / base.id).glob("*.faiss"))
    path.write_bytes(b"\0" * 100)
    report = _verify(services)

    _repair(services)

    assert {problem.kind for problem in report.problems} == {"index"}
    assert _verify(services).ok


def test_an_index_without_its_folder_is_sound(services: Services, base: KnowledgeBase) -> None:
    services.retriever.forget(base.id)
    with services.database.write() as session:
        session.execute(text("DELETE FROM index_snapshot"))
    shutil.rmtree(services.settings.home / "index")

    assert _verify(services).ok


def test_shifted_offsets_are_noticed(services: Services, base: KnowledgeBase) -> None:
    with services.database.write() as session:
        session.execute(update(ChunkRow).where(ChunkRow.id == 2).values(start=ChunkRow.start + 1))

    assert "offsets" in _kinds(services)


def test_a_vector_of_other_text_is_noticed(services: Services, base: KnowledgeBase) -> None:
    with services.database.write() as session:
        session.execute(update(EmbeddingRow).where(EmbeddingRow.id == 1).values(text_hash=b"x"))

    assert "embedding" in _kinds(services)


def test_a_row_that_disagrees_with_its_text_is_noticed(
    services: Services, base: KnowledgeBase
) -> None:
    with services.database.write() as session:
        session.execute(update(DocumentRow).values(content_hash="0" * 64))

    assert "document" in _kinds(services)


def test_missing_uploaded_bytes_are_noticed(services: Services) -> None:
    uploads = make_base(services.database, "uploads")
    add_document(services.database, uploads, "up.txt", ["bytes of this are nowhere"], kind="upload")

    problems = _verify(services).problems

    assert [problem.kind for problem in problems] == ["blob"]


def test_a_base_of_an_older_splitter_is_split_again_from_stored_text(
    services: Services, base: KnowledgeBase
) -> None:
    flags = [["instruction", "reads like orders"]]
    with services.database.write() as session:
        session.execute(update(KnowledgeBaseRow).values(splitter="old/0"))
        session.execute(update(DocumentRow).where(DocumentRow.path == "a.txt").values(flags=flags))

    done = resplit(services.sync_parts)

    assert len(done) == 1
    with services.database.read() as session:
        found = find_document(session, base, "a.txt")
    assert found.flags == (Flag("instruction", "reads like orders"),)
    assert resplit(services.sync_parts) == []
    assert _verify(services).ok


# Each kind of damage, made by hand; what it is called; all of it can be mended.


def _sql(*statements: str) -> Callable[[Services, KnowledgeBase], None]:
    def damage(services: Services, base: KnowledgeBase) -> None:
        raw = sqlite3.connect(services.database.path)  # foreign keys are off here
        for statement in statements:
            raw.execute(statement.replace("BASE", base.id))
        raw.commit()
        raw.close()

    return damage


def _flip_vector(services: Services, base: KnowledgeBase) -> None:
    with services.database.write() as session:
        session.execute(
            update(EmbeddingRow)
            .where(EmbeddingRow.id == 1)
            .values(vector=np.full(64, 3, dtype="<f2").tobytes())
        )


def _damage_snapshot(services: Services, base: KnowledgeBase) -> None:
    path = next((services.settings.home / "index" / base.id).glob("*.faiss"))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def _delete_snapshot(services: Services, base: KnowledgeBase) -> None:
    shutil.rmtree(services.settings.home / "index")


def _cut_snapshot(services: Services, base: KnowledgeBase) -> None:
    path = next((services.settings.home / "index" / base.id).glob("*.faiss"))
    path.write_bytes(path.read_bytes()[:100])


DAMAGE = {
    "a full-text row is lost": (_sql("DELETE FROM fulltext_BASE WHERE rowid = 1"), "fulltext"),
    "a full-text row is of another text": (
        _sql("UPDATE fulltext_BASE SET body = 'something else' WHERE rowid = 2"),
        "fulltext",
    ),
    "full text has a row too many": (
        _sql("INSERT INTO fulltext_BASE(rowid, body) VALUES (77, 'orphan')"),
        "fulltext",
    ),
    "full text lost its terms": (_sql("DELETE FROM fulltext_BASE_data WHERE id > 10"), "fulltext"),
    "full text is gone": (_sql("DROP TABLE fulltext_BASE"), "fulltext"),
    "a snapshot is damaged": (_damage_snapshot, "index"),
    "a snapshot is cut": (_cut_snapshot, "index"),
    "the index folder is gone": (_delete_snapshot, "index"),
    "a snapshot is ahead": (_sql("UPDATE index_snapshot SET seq = 99"), "index"),
    "an event is lost": (
        _sql(
            "UPDATE knowledge_base SET last_seq = last_seq + 2",
            "INSERT INTO change_log VALUES ('BASE', 4, 1, 1)",
        ),
        "index",
    ),
    "offsets are shifted": (_sql("UPDATE chunk SET start = start + 1 WHERE id = 2"), "offsets"),
    "the last chunk is gone": (
        _sql("DELETE FROM chunk WHERE id = (SELECT max(id) FROM chunk)"),
        "offsets",
    ),
    "a page is wrong": (_sql("UPDATE chunk SET page = 7 WHERE id = 1"), "offsets"),
    "a heading is wrong": (_sql("UPDATE chunk SET heading = 'x' WHERE id = 1"), "embedding"),
    "a vector is of other text": (
        _sql("UPDATE embedding SET text_hash = x'00' WHERE id = 1"),
        "embedding",
    ),
    "a vector is cut": (_sql("UPDATE embedding SET vector = x'0011' WHERE id = 1"), "embedding"),
    "a vector is damaged": (_flip_vector, "embedding"),
    "a vector is gone": (_sql("DELETE FROM embedding WHERE id = 1"), "database"),
    "hashes disagree": (_sql(f"UPDATE document SET content_hash = '{'0' * 64}'"), "document"),
    "a ready document is called empty": (_sql("UPDATE document SET status = 'empty'"), "document"),
    "a document has no source": (
        _sql(
            "INSERT INTO document(id, kb_id, source_id, path, status, size_bytes, stat_key, "
            "updated_at) VALUES ('d', 'BASE', 'nowhere', 'lost.txt', 'empty', 0, '', '')"
        ),
        "database",
    ),
    "a source has no base": (
        _sql("INSERT INTO source VALUES ('s', 'nowhere', 'folder', '/x', 'x')"),
        "database",
    ),
    "a chunk has no document": (
        _sql(
            "INSERT INTO chunk(kb_id, document_id, embedding_id, position, start, end, heading) "
            "VALUES ('BASE', 'nowhere', 1, 0, 0, 5, '')"
        ),
        "database",
    ),
    "pages cannot be read": (
        _sql("UPDATE document_version SET page_starts = '[1, ' WHERE id = 1"),
        "record",
    ),
    "pages are nothing": (_sql("UPDATE document_version SET page_starts = 'null'"), "record"),
    "pages are words": (_sql("UPDATE document_version SET page_starts = '[\"a\"]'"), "record"),
    "weights are words": (
        _sql('UPDATE knowledge_base SET channel_weights = \'{"dense": "x"}\''),
        "record",
    ),
    "flags are of another shape": (_sql("UPDATE document SET flags = '{}'"), "record"),
    "weights of channels cannot be read": (
        _sql("UPDATE knowledge_base SET channel_weights = x'00ff'"),
        "record",
    ),
    "a quote is not in the text": (
        _sql(
            ADD_TRACE.format("NULL"),
            "INSERT INTO trace_passage SELECT 't', 'citation', 1, document_id, id, 0, 2, 'no' "
            "FROM document_version LIMIT 1",
        ),
        "citation",
    ),
    "a cited text is gone": (
        _sql(
            ADD_TRACE.format("NULL"),
            "INSERT INTO trace_passage VALUES ('t', 'citation', 1, 'd', 99, 0, 2, 'no')",
        ),
        "citation",
    ),
}


@pytest.fixture
def split_base(services: Services) -> KnowledgeBase:
    """A base whose chunks are those that the splitter makes, as after an ingest."""
    base = make_base(services.database)
    for path in ("a.md", "b.md"):
        text_of = "\n\n".join(f"{path} 第{n}节：泵每 {n * 37} 天检查一次。" * 9 for n in range(9))
        loaded = prepared(path, [text_of]).loaded
        document, strings = prepare(path, "", loaded)
        vectors = FakeEmbedder().embed_array(strings)
        keys = [chunk.text_hash for chunk in document.chunks]
        with services.database.write() as session:
            source = find_or_add_source(session, base.id, kind="folder", root="", label="")
            store_embeddings(session, base.embedder_id, dict(zip(keys, vectors, strict=True)))
            assert write_document(session, base, source, document).added > 1
    services.retriever.view(base).save()
    return base


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_named_and_mended(
    services: Services, split_base: KnowledgeBase, name: str
) -> None:
    base = split_base
    damage, kind = DAMAGE[name]
    question = Question("a.md 每 185 天检查一次", ("test",), 1)
    before = [hit.chunk.text for hit in services.retriever.search(question).hits]
    services.retriever.forget(base.id)  # what another process finds
    damage(services, base)

    report = _verify(services)
    done = _repair(services)

    assert kind in {problem.kind for problem in report.problems}
    assert done
    assert _verify(services).problems == ()
    assert [hit.chunk.text for hit in services.retriever.search(question).hits] == before
    with sqlite3.connect(services.database.path) as raw:
        assert raw.execute("SELECT count(*) FROM trace WHERE NOT is_redacted").fetchone() == (0,)
    raw.close()


def test_a_lost_text_is_said_to_need_an_ingest_and_comes_back_with_it(
    services: Services, tmp_path: Path
) -> None:
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "a.txt").write_text("The pump is checked weekly.")
    base = make_base(services.database)
    sync_folders(services.sync_parts, base, [folder], SyncOptions())
    with services.database.write() as session:
        session.execute(delete(DocumentVersionRow))

    kinds = _kinds(services)
    done = _repair(services)
    after_repair = _verify(services)
    report = sync_folders(services.sync_parts, base, [folder], SyncOptions())

    assert kinds == {"document", "offsets"}
    assert any("ingest or upload the file again" in line for line in done)
    assert after_repair.ok
    assert (report.added, report.failed) == (1, ())
    assert _verify(services).ok
    hits = services.retriever.search(Question("pump checked", ("test",), 1)).hits
    assert hits[0].chunk.text == "The pump is checked weekly."


def test_a_damaged_text_is_read_again_by_the_next_ingest(
    services: Services, tmp_path: Path
) -> None:
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "a.txt").write_text("The pump is checked weekly.")
    base = make_base(services.database)
    sync_folders(services.sync_parts, base, [folder], SyncOptions())
    with services.database.write() as session:
        session.execute(update(DocumentVersionRow).values(text="The pumq is checked weekly."))

    kinds = _kinds(services)
    _repair(services)
    after_repair = _verify(services)
    sync_folders(services.sync_parts, base, [folder], SyncOptions())

    assert "embedding" in kinds
    assert after_repair.ok
    assert _verify(services).ok
    hits = services.retriever.search(Question("pump checked", ("test",), 1)).hits
    assert hits[0].chunk.text == "The pump is checked weekly."


def test_an_unreadable_record_of_an_answer_is_dropped_and_the_answer_kept(
    services: Services, base: KnowledgeBase
) -> None:
    with services.database.write() as session:
        session.execute(text(ADD_TRACE.format("'[]'")))

    kinds = _kinds(services)
    _repair(services)

    assert kinds == {"record"}
    with services.database.read() as session:
        trace = read_trace(session, "t")
    assert (trace.answer, trace.request) == ("a", None)


def test_scripts_of_an_embedder_that_were_lost_come_back_with_the_next_ingest(
    services: Services, tmp_path: Path
) -> None:
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "a.txt").write_text("The pump is checked weekly.")
    base = make_base(services.database)
    with services.database.write() as session:
        session.execute(text("UPDATE embedder SET scripts = '{'"))

    done = _repair(services)
    with services.database.read() as session:
        repaired = find_base(session, base.id)
    sync_folders(services.sync_parts, repaired, [folder], SyncOptions())

    assert done == ["embedder.scripts: 1 emptied"]
    assert repaired.embedder.scripts == frozenset()
    with services.database.read() as session:
        assert find_base(session, base.id).embedder.scripts == {"Latn", "Hani"}


LOST_POINTERS = {
    "a base lost its embedder": "UPDATE knowledge_base SET embedder_id = 77",
    "a source lost its base": "UPDATE source SET kb_id = 'gone' WHERE kind = 'folder'",
    "the documents lost their base": "UPDATE document SET kb_id = 'gone'",
    "the documents lost their source": "UPDATE document SET source_id = 'gone'",
    "the source of uploads is gone": "DELETE FROM source WHERE kind = 'upload'",
    "a vector lost its embedder": "UPDATE embedding SET embedder_id = 77 WHERE id = 1",
}


@pytest.mark.parametrize("name", LOST_POINTERS)
def test_a_lost_pointer_costs_no_document(services: Services, tmp_path: Path, name: str) -> None:
    """Repairing once removed whole bases, and the originals of uploads with them."""
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "a.txt").write_text("The pump is checked weekly.")
    base = make_base(services.database)
    sync_folders(services.sync_parts, base, [folder], SyncOptions())
    content = b"The valve opens at 6 bar."
    sha256 = hashlib.sha256(content).hexdigest()
    services.blobs.folder.mkdir(exist_ok=True)
    services.blobs.path(sha256).write_bytes(content)
    add_document(services.database, base, "up.txt", [content.decode()], kind="upload")
    with sqlite3.connect(services.database.path) as raw:
        raw.execute("PRAGMA foreign_keys = OFF")
        raw.execute(LOST_POINTERS[name])
    raw.close()

    found = _kinds(services)
    _repair(services)

    assert "database" in found
    assert _verify(services).problems == ()
    with services.database.read() as session:
        base = find_base(session, "test")
        kept = [find_document(session, base, path).status for path in ("a.txt", "up.txt")]
    assert kept == ["ready", "ready"]
    assert services.blobs.path(sha256).read_bytes() == content
    hits = services.retriever.search(Question("valve opens", ("test",), 1)).hits
    assert hits[0].document == "up.txt"


def test_uploads_of_a_lost_base_keep_their_bytes(services: Services) -> None:
    content = b"The valve opens at 6 bar."
    sha256 = hashlib.sha256(content).hexdigest()
    services.blobs.folder.mkdir(exist_ok=True)
    services.blobs.path(sha256).write_bytes(content)
    base = make_base(services.database)
    add_document(services.database, base, "up.txt", [content.decode()], kind="upload")
    with sqlite3.connect(services.database.path) as raw:
        raw.execute("PRAGMA foreign_keys = OFF")
        raw.execute("DELETE FROM knowledge_base")
    raw.close()

    for _ in range(2):  # the second finds what the first left
        _repair(services)

    assert "database" in _kinds(services)
    assert services.blobs.path(sha256).read_bytes() == content


def test_a_text_that_is_no_text_is_named_and_read_again(services: Services, tmp_path: Path) -> None:
    folder = tmp_path / "docs"
    folder.mkdir()
    for name in ("a", "b"):
        (folder / f"{name}.txt").write_text(f"The pump {name} is checked weekly.")
    base = make_base(services.database)
    sync_folders(services.sync_parts, base, [folder], SyncOptions())
    with services.database.read() as session:
        damaged = find_document(session, base, "a.txt").id
    with services.database.write() as session:
        session.execute(
            text(
                "UPDATE document_version SET text = CAST(x'ff41' || CAST(text AS BLOB) AS TEXT) "
                "WHERE document_id = :id"
            ),
            {"id": damaged},
        )

    report = _verify(services)
    done = _repair(services)
    after_repair = _verify(services)
    again = sync_folders(services.sync_parts, base, [folder], SyncOptions())

    assert [(p.kind, p.key) for p in report.problems] == [("text", damaged)]
    assert "pump" not in "".join(p.detail for p in report.problems)
    assert any("ingest its file again" in line for line in done)
    assert after_repair.ok
    assert (again.added, again.failed) == (1, ())
    hits = services.retriever.search(Question("pump a", ("test",), 2)).hits
    assert {hit.document.rsplit("/", 1)[-1] for hit in hits} == {"a.txt", "b.txt"}


def test_more_damaged_records_than_a_statement_holds_are_mended(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_storage, "MAX_VALUES", 7)
    base = make_base(services.database)
    for n in range(20):
        add_document(services.database, base, f"{n}.txt", [f"Pump {n} is checked."])
    with services.database.write() as session:
        session.execute(text("UPDATE document SET flags = 'x'"))

    assert _repair(services) == ["document.flags: 20 emptied"]
    assert _verify(services).ok


def test_an_answer_whose_record_has_another_form_is_an_error_that_says_so(
    services: Services, base: KnowledgeBase
) -> None:
    with services.database.write() as session:
        session.execute(text(ADD_TRACE.format("'{\"history\"\\: [3]}'")))

    with services.database.read() as session, pytest.raises(StorageError, match="answer t"):
        read_trace(session, "t")


def test_a_file_whose_pages_were_lost_is_read_again(services: Services, tmp_path: Path) -> None:
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "a.md").write_text("# Pumps\n\nThe pump is checked weekly.")
    base = make_base(services.database)
    sync_folders(services.sync_parts, base, [folder], SyncOptions())
    with services.database.write() as session:
        session.execute(text("UPDATE document_version SET headings = 'x'"))

    _repair(services)
    after_repair = _verify(services)
    report = sync_folders(services.sync_parts, base, [folder], SyncOptions())

    assert after_repair.ok
    assert (report.added, report.failed) == (1, ())  # as for a text that is lost
    with services.database.read() as session:
        assert session.scalar(select(DocumentVersionRow.headings)) == [[0, 1, "Pumps"]]


def test_damaged_uploaded_bytes_are_noticed_and_need_an_upload(services: Services) -> None:
    uploads = make_base(services.database, "uploads")
    add_document(services.database, uploads, "up.txt", ["some bytes"], kind="upload")
    services.blobs.folder.mkdir()
    blob = services.blobs.path(hashlib.sha256(b"some bytes").hexdigest())
    blob.write_bytes(b"some bytes")
    sound = _verify(services).ok
    blob.write_bytes(b"some bytez")

    _repair(services)

    assert sound
    assert [p.detail for p in _verify(services).problems] == [
        "up.txt: the uploaded bytes are damaged; upload it again"
    ]


def test_a_cut_database_is_told_in_a_line_and_not_by_a_traceback(
    services: Services, base: KnowledgeBase, tmp_path: Path
) -> None:
    texts = [f"{n} things about subject {n * 7919} in room {n % 13}. " * 20 for n in range(200)]
    add_document(services.database, base, "long.txt", texts)
    services.database.empty_log(1)
    services.close()
    path = services.database.path
    size = path.stat().st_size
    told: list[str] = []
    for share in (0.9, 0.6, 0.3, 0.05):
        with path.open("r+b") as file:
            file.truncate(int(size * share))
        try:
            with open_services(tmp_path / "home") as damaged:
                told += {problem.kind for problem in _verify(damaged).problems} & {"database"}
        except StorageError as exc:
            told += ["is damaged"] * ("is damaged" in str(exc))

    assert len(told) == 4, told


def test_leftovers_are_no_problems_and_repair_removes_them(
    services: Services, base: KnowledgeBase
) -> None:
    home = services.settings.home
    with services.database.write() as session:
        store_embeddings(session, base.embedder_id, {b"x" * 32: np.ones(64, dtype=np.float32)})
        session.execute(
            insert(DocumentVersionRow).values(
                document_id=document_ids(session, base)[0],
                is_current=False,
                content_hash="0" * 64,
                text="old",
                page_starts=[],
                headings=[],
                loader="text/1",
                created_at="",
            )
        )
        job = create_job(session, base.id, "ingest", owner="killed")
        session.execute(update(JobRow).where(JobRow.id == job.id).values(heartbeat_at=1.0))
        sqlite_storage.create_fulltext(session, "a" * 32)
    services.blobs.folder.mkdir()
    services.blobs.path("0" * 64).write_bytes(b"nobody's")
    staged = services.blobs.folder / f"incoming-{'0' * 32}"
    staged.write_bytes(b"half")
    os.utime(staged, (1, 1))
    (home / "index" / base.id / "1234.tmp").write_bytes(b"half")
    (home / "index" / ("b" * 32)).mkdir()

    report = _verify(services)
    done = _repair(services)

    assert report.ok
    assert len(report.leftovers) == 8
    assert len(done) == 8
    assert _verify(services).leftovers == ()
    assert not list(services.blobs.folder.iterdir())


def test_nothing_is_left_over_while_a_job_is_live(services: Services, base: KnowledgeBase) -> None:
    with services.database.write() as session:
        store_embeddings(session, base.embedder_id, {b"x" * 32: np.ones(64, dtype=np.float32)})
        create_job(session, base.id, "ingest", owner="alive")

    assert _verify(services).leftovers == ()
    assert _repair(services) == []
