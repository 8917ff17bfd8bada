"""`kb verify` notices every kind of damage, and repairs what the database can give back."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text, update

from ingest.resplit import resplit
from ingest.splitter import SPLITTER
from kb.records import Flag, KnowledgeBase, Question
from kb.storage import sqlite
from kb.storage.documents import find_document
from kb.storage.tables import ChunkRow, DocumentRow, EmbeddingRow, KnowledgeBaseRow
from kb.verify import VerifyReport, repair, verify
from kb.wiring import Services
from tests.building import add_document, make_base, open_services


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


def test_a_sound_base_has_no_problems(services: Services, base: KnowledgeBase) -> None:
    report = _verify(services)

    assert report.ok
    assert (report.documents, report.chunks) == (2, 3)


def test_missing_full_text_is_noticed_and_made_again(
    services: Services, base: KnowledgeBase
) -> None:
    with services.database.write() as session:
        sqlite.delete_fulltext(session, base.id, [1])
    report = _verify(services)

    done = repair(services.database, services.retriever, report.problems)

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
    repair(services.database, services.retriever, report.problems)

    assert {problem.kind for problem in report.problems} == {"fulltext-version"}
    assert _verify(services).ok


def test_a_damaged_snapshot_is_noticed_and_made_again(
    services: Services, base: KnowledgeBase
) -> None:
    path = next((services.settings.home / "index" / base.id).glob("*.faiss"))
    path.write_bytes(b"\0" * 100)
    report = _verify(services)

    repair(services.database, services.retriever, report.problems)

    assert {problem.kind for problem in report.problems} == {"index"}
    assert _verify(services).ok


def test_an_index_without_its_folder_is_sound(services: Services, base: KnowledgeBase) -> None:
    import shutil

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
