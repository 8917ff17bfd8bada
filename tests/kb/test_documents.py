"""The document transaction: offsets, reuse of chunks, versions, removal and redaction."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from ingest.fake import FakeEmbedder
from kb.errors import DocumentNotFoundError, KnowledgeBaseNotFoundError
from kb.records import Answer, ChannelScores, Citation, Hit, KnowledgeBase, Passage, Source
from kb.storage.bases import delete_base, find_or_add_source
from kb.storage.database import Database
from kb.storage.documents import (
    MissingVectorsError,
    find_document,
    list_chunks,
    list_documents,
    record_failure,
    remove_documents,
    version_text,
    write_document,
)
from kb.storage.embeddings import sweep_embeddings
from kb.storage.fulltext import FullText
from kb.storage.tables import (
    ChangeRow,
    ChunkRow,
    DocumentVersionRow,
    EmbeddingRow,
    TracePassageRow,
    TraceRow,
)
from kb.storage.traces import REDACTED, store_trace
from tests.building import add_document, document_ids, make_base, prepared


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = Database.open(tmp_path)
    yield opened
    opened.close()


@pytest.fixture
def base(database: Database) -> KnowledgeBase:
    return make_base(database)


def _count(session: Session, table: type) -> int:
    return session.scalar(select(func.count()).select_from(table)) or 0


def _store_answer(database: Database, base: KnowledgeBase, path: str) -> str:
    """Store an answer that cites the first chunk of a document; return the trace id."""
    with database.write() as session:
        document = find_document(session, base, path)
        chunk = list_chunks(session, document)[0]
        hit = Hit(1, 1.0, base.name, path, chunk, ChannelScores(None, 1.0, None))
        citation = Citation(
            "[1]", base.name, document.id, path, chunk.version_id, None, 0, 5, chunk.text[:5], True
        )
        answer = Answer(
            chunk.text[:5], False, 0.9, None, (citation,), (Passage(1, hit),), "extractive"
        )
        store_trace(
            session, trace_id="a" * 32, question="问题", answer=answer, created_at="2026-01-01"
        )
    return "a" * 32


def test_chunks_reproduce_the_text_at_their_offsets(
    database: Database, base: KnowledgeBase
) -> None:
    add_document(database, base, "手册.md", ["第一段。\n", "第二段 emoji 😀。\n", "third part"])

    with database.read() as session:
        document = find_document(session, base, "手册.md")
        chunks = list_chunks(session, document)
        text = version_text(session, document.version_id or 0)
    assert [text[c.start : c.end] for c in chunks] == [c.text for c in chunks]
    assert "".join(c.text for c in chunks) == text


def test_unchanged_chunks_keep_their_row_and_cause_no_event(
    database: Database, base: KnowledgeBase
) -> None:
    add_document(database, base, "a.txt", ["one ", "two ", "three "])
    with database.read() as session:
        before = {c.text: c.id for c in list_chunks(session, find_document(session, base, "a.txt"))}
        events_before = _count(session, ChangeRow)

    counts = add_document(database, base, "a.txt", ["a new beginning ", "one ", "two ", "three "])

    with database.read() as session:
        after = {c.text: c for c in list_chunks(session, find_document(session, base, "a.txt"))}
        events = _count(session, ChangeRow) - events_before
    assert (counts.added, counts.reused, counts.removed) == (1, 3, 0)
    assert {text: after[text].id for text in before} == before
    assert after["one "].start == len("a new beginning ")
    assert events == 1


def test_repeated_chunks_each_keep_a_row(database: Database, base: KnowledgeBase) -> None:
    add_document(database, base, "a.txt", ["same ", "same ", "same "])

    counts = add_document(database, base, "a.txt", ["same ", "same "])

    assert (counts.added, counts.reused, counts.removed) == (0, 2, 1)
    with database.read() as session:
        assert FullText(session, base.id).count() == 2


def test_a_document_is_not_written_while_vectors_are_missing(
    database: Database, base: KnowledgeBase
) -> None:
    document = prepared("a.txt", ["never embedded"])

    with pytest.raises(MissingVectorsError), database.write() as session:
        source = find_or_add_source(session, base.id, kind="upload", root="", label="")
        write_document(session, base, source, document)

    with database.read() as session:
        assert list_documents(session, base.id) == ([], 0)


def test_chunk_ids_are_never_used_again(database: Database, base: KnowledgeBase) -> None:
    add_document(database, base, "a.txt", ["one", "two"])
    with database.write() as session:
        highest = session.scalar(select(func.max(ChunkRow.id)))
        remove_documents(session, base.id, document_ids(session, base))

    add_document(database, base, "b.txt", ["three"])

    with database.read() as session:
        assert session.scalar(select(func.min(ChunkRow.id))) == (highest or 0) + 1


def test_an_old_version_stays_only_while_an_answer_cites_it(
    database: Database, base: KnowledgeBase
) -> None:
    add_document(database, base, "cited.txt", ["old cited text"])
    add_document(database, base, "other.txt", ["old other text"])
    _store_answer(database, base, "cited.txt")

    add_document(database, base, "cited.txt", ["new cited text"])
    add_document(database, base, "other.txt", ["new other text"])

    with database.read() as session:
        texts = set(session.scalars(select(DocumentVersionRow.text)))
    assert texts == {"old cited text", "new cited text", "new other text"}


def test_removing_a_document_redacts_the_answers_that_used_it(
    database: Database, base: KnowledgeBase
) -> None:
    add_document(database, base, "a.txt", ["secret words"])
    trace_id = _store_answer(database, base, "a.txt")

    with database.write() as session:
        remove_documents(session, base.id, document_ids(session, base))

    with database.read() as session:
        trace = session.get_one(TraceRow, trace_id)
        assert (trace.answer, trace.is_redacted) == (REDACTED, True)
        assert _count(session, TracePassageRow) == 0
        assert _count(session, DocumentVersionRow) == 0
        assert _count(session, ChunkRow) == 0
        assert FullText(session, base.id).count() == 0


def test_an_answer_about_a_document_that_just_went_is_stored_without_its_text(
    database: Database, base: KnowledgeBase
) -> None:
    add_document(database, base, "a.txt", ["first version of the text"])
    with database.read() as session:
        document = find_document(session, base, "a.txt")
        chunk = list_chunks(session, document)[0]
    add_document(database, base, "a.txt", ["second version"])
    hit = Hit(1, 1.0, base.name, "a.txt", chunk, ChannelScores(None, 1.0, None))
    answer = Answer("first version", False, 0.9, None, (), (Passage(1, hit),), "extractive")

    with database.write() as session:
        store_trace(session, trace_id="b" * 32, question="q", answer=answer, created_at="x")

    with database.read() as session:
        assert session.get_one(TraceRow, "b" * 32).answer == REDACTED


def test_deleting_a_base_leaves_nothing_of_it(database: Database, base: KnowledgeBase) -> None:
    keep = make_base(database, "keep")
    add_document(database, keep, "k.txt", ["kept text"])
    add_document(database, base, "a.txt", ["going away", "all of it"])
    _store_answer(database, base, "a.txt")

    with database.write() as session:
        delete_base(session, base)
        sweep_embeddings(session)

    with database.read() as session:
        assert _count(session, ChunkRow) == 1
        assert _count(session, EmbeddingRow) == 1
        assert session.get_one(TraceRow, "a" * 32).answer == REDACTED


def test_a_base_deleted_meanwhile_takes_no_more_documents(
    database: Database, base: KnowledgeBase
) -> None:
    gone = Source(id="x" * 32, kb_id=base.id, kind="upload", root="", label="")
    with database.write() as session:
        delete_base(session, base)

    with pytest.raises(KnowledgeBaseNotFoundError), database.write() as session:
        record_failure(session, gone, "a.txt", error="e", content_hash=None, loader="", stat_key="")


def test_a_document_is_found_by_id_path_and_display_name(
    database: Database, base: KnowledgeBase
) -> None:
    add_document(database, base, "ordner/ä.txt", ["text"])
    with database.read() as session:
        by_path = find_document(session, base, "ordner/a\u0308.txt")

        assert find_document(session, base, by_path.id) == by_path
        with pytest.raises(DocumentNotFoundError, match="kb docs list"):
            find_document(session, base, "missing.txt")


def test_vectors_are_stored_as_float16_of_the_embedders_vectors(
    database: Database, base: KnowledgeBase
) -> None:
    add_document(database, base, "a.txt", ["some text to embed"])

    with database.read() as session:
        row = session.scalars(select(EmbeddingRow)).one()

    expected = FakeEmbedder().embed_array(["some text to embed"])[0].astype("<f2")
    assert row.vector == expected.tobytes()
