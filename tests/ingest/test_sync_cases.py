"""Sync, case by case: odd names and files, links, several roots, what is left out, versions."""

import os
import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ingest.scan import FoundFile
from ingest.splitter import SPLITTER
from ingest.sync import SyncOptions, sync_folders, sync_uploads
from kb.errors import ConfirmationNeededError, InvalidInputError, StorageError
from kb.records import IngestReport, KnowledgeBase, Question
from kb.storage.bases import list_sources
from kb.storage.documents import find_document, find_version, list_documents, version_text
from kb.storage.traces import redact_documents
from kb.upkeep.verify import verify
from kb.wiring import Services
from tests.building import open_services

TEXT = "第{n}条 设备 BX{n:03d} 每 {n} 天检查一次，由班长签字确认后归档保存。" * 3


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    with open_services(tmp_path / "home") as opened:
        yield opened
        report = verify(opened.database, opened.retriever, opened.blobs, splitter=SPLITTER)
        assert report.problems == ()


@pytest.fixture
def base(services: Services) -> KnowledgeBase:
    return services.create_base("手册")


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    folder = tmp_path / "docs"
    for n in range(4):
        _write(folder / f"{n}.txt", TEXT.format(n=n))
    return folder


def _write(path: Path, text: str) -> None:
    """Write a file that looks as if it had been there for a while."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    os.utime(path, (time.time() - 60,) * 2)


def _sync(services: Services, base: KnowledgeBase, *paths: Path, **options: object) -> IngestReport:
    chosen = replace(SyncOptions(), **options)
    return sync_folders(services.sync_parts, base, list(paths), chosen)


def _names(services: Services, base: KnowledgeBase) -> list[str]:
    with services.database.read() as session:
        return [document.path for document in list_documents(session, base.id)[0]]


def _roots(services: Services, base: KnowledgeBase) -> list[str]:
    with services.database.read() as session:
        return [Path(source.root).name for source in list_sources(session, base.id)]


# Names and files


def test_a_name_in_another_case_is_a_move(
    services: Services, base: KnowledgeBase, docs: Path
) -> None:
    _write(docs / "A.md", "# 标题\n\n正文")
    _sync(services, base, docs)
    (docs / "A.md").rename(docs / "a.md")

    report = _sync(services, base, docs)

    assert (report.moved, report.added, report.removed, report.chunks_embedded) == (1, 0, 0, 0)


def test_a_copy_is_a_second_document_that_embeds_nothing(
    services: Services, base: KnowledgeBase, docs: Path, tmp_path: Path
) -> None:
    first = _sync(services, base, docs)
    _write(tmp_path / "other" / "0.txt", TEXT.format(n=0))

    report = _sync(services, base, tmp_path / "other")

    assert first.chunks_embedded > 0
    assert (report.added, report.chunks_embedded) == (1, 0)
    assert len(_names(services, base)) == 5


def test_files_that_swap_names_embed_nothing(
    services: Services, base: KnowledgeBase, docs: Path
) -> None:
    _sync(services, base, docs)
    (docs / "0.txt").rename(docs / "x")
    (docs / "1.txt").rename(docs / "0.txt")
    (docs / "x").rename(docs / "1.txt")

    report = _sync(services, base, docs)

    assert (report.changed, report.removed, report.chunks_embedded) == (2, 0, 0)


@pytest.mark.parametrize(
    "name",
    [
        "a\nb.txt",
        'it\'s "q".txt',
        "🙂.txt",
        "长" * 80 + ".txt",
        " lead .txt",
        "%41?#&.txt",
        "-x.txt",
    ],
)
def test_odd_names_are_documents_like_others(
    services: Services, base: KnowledgeBase, docs: Path, name: str
) -> None:
    _write(docs / name, "员工每年享有 12 天带薪年假。")
    _sync(services, base, docs)

    assert name in _names(services, base)
    assert _sync(services, base, docs).unchanged == 5


def test_a_name_that_is_not_utf8_is_reported_and_the_rest_is_read(
    services: Services, base: KnowledgeBase, docs: Path
) -> None:
    folder = os.fsencode(docs)
    for name in (b"\xff.txt", b"\xb2\xdd"):
        if name.endswith(b".txt"):
            Path(os.fsdecode(folder + b"/" + name)).write_text("x")
        else:
            _write(Path(os.fsdecode(folder + b"/" + name)) / "in.txt", "x")

    report = _sync(services, base, docs)

    assert report.added == 4
    assert all("not valid UTF-8" in file.error for file in report.failed)
    assert len(report.failed) == 2


def test_pipes_sockets_and_data_folders_of_kb_are_no_documents(
    services: Services, base: KnowledgeBase, docs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(docs / "pipe.txt")
    monkeypatch.chdir(docs)  # a socket's path must be short
    with socket.socket(socket.AF_UNIX) as server, open_services(docs / "home"):
        server.bind("socket.txt")
        report = _sync(services, base, docs)

        assert (report.added, report.failed) == (4, ())
        with pytest.raises(InvalidInputError, match="data folder of kb"):
            _sync(services, base, docs / "home")
        with pytest.raises(InvalidInputError, match="neither a file nor a folder"):
            _sync(services, base, docs / "pipe.txt")


def test_a_document_that_became_a_folder_or_pipe_is_removed(
    services: Services, base: KnowledgeBase, docs: Path
) -> None:
    _sync(services, base, docs)
    for name in ("0.txt", "1.txt"):
        (docs / name).unlink()
    os.mkfifo(docs / "0.txt")
    _write(docs / "1.txt" / "in.txt", "inside")

    report = _sync(services, base, docs)

    assert report.changes["removed"] == ("0.txt", "1.txt")
    assert _names(services, base) == ["1.txt/in.txt", "2.txt", "3.txt"]


def test_a_file_that_changes_while_it_is_read_is_repaired_by_the_next_sync(
    services: Services, base: KnowledgeBase, docs: Path
) -> None:
    _sync(services, base, docs)
    _write(docs / "0.txt", "erste Fassung")
    parser = services.sync_parts.parser
    load = parser.load

    def load_then_change(location: Path, path: str, **options: Any) -> object:
        loaded = load(location, path, **options)
        location.write_text("zweite Fassung", encoding="utf-8")
        return loaded

    parser.load = load_then_change  # type: ignore[method-assign, assignment]
    _sync(services, base, docs)
    parser.load = load  # type: ignore[method-assign]

    report = _sync(services, base, docs)

    assert report.changed == 1
    with services.database.read() as session:
        document = find_document(session, base, "0.txt")
        assert version_text(session, document.version_id or 0) == "zweite Fassung"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_closed_files_and_folders_are_reported_and_kept(
    services: Services, base: KnowledgeBase, docs: Path
) -> None:
    _write(docs / "sub" / "in.txt", "inside the folder")
    _sync(services, base, docs)
    (docs / "0.txt").chmod(0)
    (docs / "sub").chmod(0)
    try:
        report = _sync(services, base, docs)
    finally:
        (docs / "sub").chmod(0o755)

    assert {file.path for file in report.failed} == {"0.txt", "sub/"}
    assert report.removed == 0
    assert _sync(services, base, docs).failed[0].path == "0.txt"


def test_a_folder_that_cannot_be_listed_keeps_its_documents(
    services: Services, base: KnowledgeBase, docs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _write(docs / "sub" / "in.txt", "inside the folder")
    _sync(services, base, docs)
    scandir = os.scandir  # refused by hand, since tests may run as root, who may list everything
    closed = docs / "sub"

    def refuse(place: str | Path) -> object:
        if Path(place) == closed:
            raise PermissionError(13, "Permission denied")
        return scandir(place)

    monkeypatch.setattr(os, "scandir", refuse)
    report = _sync(services, base, docs)

    assert [file.path for file in report.failed] == ["sub/"]
    assert "sub/in.txt" in _names(services, base)
    closed = docs
    with pytest.raises(StorageError, match="cannot list"):
        _sync(services, base, docs)


# Links


def test_links_are_read_inside_the_root_only_and_never_lead_in_circles(
    services: Services, base: KnowledgeBase, docs: Path, tmp_path: Path
) -> None:
    _write(tmp_path / "outside" / "secret.txt", "outside")
    _write(docs / "sub" / "in.txt", "inside")
    links = {
        "file.txt": docs / "0.txt",
        "again": docs / "sub",
        "sub/up": docs,
        "out.txt": tmp_path / "outside" / "secret.txt",
        "out": tmp_path / "outside",
        "gone.txt": docs / "nothing.txt",
        "self.txt": docs / "self.txt",
    }
    for name, target in links.items():
        (docs / name).symlink_to(target)

    report = _sync(services, base, docs)

    assert report.changes["added"] == (*(f"{n}.txt" for n in range(4)), "file.txt", "sub/in.txt")
    reasons = {file.path: file.error for file in report.failed}
    assert reasons.keys() == {"out.txt", "out", "gone.txt", "self.txt"}
    assert "leaves the folder" in reasons["out"]
    assert "is gone" in reasons["gone.txt"]
    assert "back to itself" in reasons["self.txt"]


def test_files_below_a_folder_that_became_a_link_are_removed(
    services: Services, base: KnowledgeBase, docs: Path
) -> None:
    _write(docs / "sub" / "in.txt", "inside")
    _sync(services, base, docs)
    (docs / "sub").rename(docs / "neu")
    (docs / "sub").symlink_to(docs / "neu")

    report = _sync(services, base, docs)

    assert (report.moved, report.removed) == (1, 0)
    assert "neu/in.txt" in _names(services, base)


# What is left out


def test_a_file_that_becomes_left_out_is_removed_and_comes_back(
    services: Services, base: KnowledgeBase, docs: Path
) -> None:
    _sync(services, base, docs)
    _write(docs / ".kbignore", "0.txt\n")

    report = _sync(services, base, docs)
    (docs / ".kbignore").unlink()
    back = _sync(services, base, docs)

    assert (report.changes["removed"], report.unchanged) == (("0.txt",), 3)
    assert (back.added, back.unchanged) == (1, 3)


def test_leaving_out_more_than_half_asks_first(
    services: Services, base: KnowledgeBase, docs: Path
) -> None:
    _sync(services, base, docs)
    _write(docs / ".kbignore", "*\n!0.txt\n")
    with pytest.raises(ConfirmationNeededError, match=r"3 of 4 .*\.kbignore"):
        _sync(services, base, docs)

    _write(docs / ".kbignore", "*\n")
    with pytest.raises(ConfirmationNeededError, match=r"left out by a \.kbignore"):
        _sync(services, base, docs)

    assert _sync(services, base, docs, yes=True).removed == 4


def test_dropped_folders_know_no_rules(services: Services, base: KnowledgeBase) -> None:
    files = []
    for name, text in ((".kbignore", "*"), ("a.txt", "text"), ("x.tmp", "text two")):
        with services.blobs.stage() as staged:
            staged.write(text.encode())
            sha256 = staged.finish()
            services.blobs.adopt([staged])
        files.append(FoundFile(f"r/{name}", services.blobs.path(sha256), 9, "", sha256))

    report = sync_uploads(services.sync_parts, base, files, "r", SyncOptions())

    assert "r/a.txt" in report.changes["added"]


# Several roots


@pytest.mark.parametrize("order", ["outer first", "inner first", "together"])
def test_a_root_inside_another_never_doubles_documents(
    services: Services, base: KnowledgeBase, docs: Path, order: str
) -> None:
    sub = docs / "sub"
    _write(sub / "in.txt", "inside")
    if order == "together":
        _sync(services, base, sub, docs)
    else:
        for path in (docs, sub) if order == "outer first" else (sub, docs):
            _sync(services, base, path)

    again = _sync(services, base, docs)

    assert (again.unchanged, again.added, again.chunks_embedded) == (5, 0, 0)
    assert len(_names(services, base)) == 5
    assert _roots(services, base) == ["docs"]


def test_a_file_and_a_folder_beside_it_make_one_root(
    services: Services, base: KnowledgeBase, docs: Path
) -> None:
    _write(docs / "sub" / "in.txt", "inside")

    report = _sync(services, base, docs / "sub", docs / "0.txt")
    again = _sync(services, base, docs)

    assert report.added == 2
    assert (again.added, again.unchanged) == (3, 2)
    assert _roots(services, base) == ["docs"]


def test_roots_that_two_processes_nested_at_once_become_one(
    services: Services, base: KnowledgeBase, docs: Path
) -> None:
    from kb.storage.bases import find_or_add_source

    _write(docs / "sub" / "in.txt", "inside")
    _sync(services, base, docs / "sub")
    with services.database.write() as session:
        find_or_add_source(session, base.id, kind="folder", root=str(docs), label="docs")

    report = _sync(services, base, docs)

    assert (report.added, report.unchanged) == (4, 1)
    assert len(_names(services, base)) == 5
    assert _roots(services, base) == ["docs"]


def test_many_single_files_are_embedded_together(
    services: Services, base: KnowledgeBase, docs: Path
) -> None:
    calls = []
    embed = services.embedder.embed_array
    services.embedder.embed_array = lambda texts: calls.append(len(texts)) or embed(texts)  # type: ignore[method-assign,func-returns-value]

    report = _sync(services, base, *sorted(docs.iterdir()))

    assert report.added == 4
    assert len(calls) == 1


def test_a_file_that_moves_between_two_roots_is_a_move(
    services: Services, base: KnowledgeBase, docs: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    _write(other / "x.txt", "other text")
    _sync(services, base, docs, other)
    with services.database.read() as session:
        before = find_document(session, base, "0.txt").id
    (docs / "0.txt").rename(other / "0.txt")

    report = _sync(services, base, docs, other)

    assert (report.moved, report.added, report.removed, report.chunks_embedded) == (1, 0, 0, 0)
    assert report.changes["moved"][0].endswith("other/0.txt")
    with services.database.read() as session:
        assert find_document(session, base, "0.txt").id == before


def test_a_renamed_root_is_told_how_to_follow_and_then_moves_whole(
    services: Services, base: KnowledgeBase, docs: Path, tmp_path: Path
) -> None:
    _sync(services, base, docs)
    new = docs.rename(tmp_path / "neu")

    with pytest.raises(ConfirmationNeededError, match="kb ingest OLD NEW"):
        _sync(services, base, docs)
    report = _sync(services, base, docs, new)

    assert (report.moved, report.removed, report.added, report.chunks_embedded) == (4, 0, 0, 0)
    assert _roots(services, base) == ["neu"]
    with pytest.raises(InvalidInputError, match="no file or folder"):
        _sync(services, base, docs)


def test_one_missing_root_of_two_changes_nothing(
    services: Services, base: KnowledgeBase, docs: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    _write(other / "x.txt", "other text")
    _sync(services, base, docs, other)
    docs.rename(tmp_path / "away")
    _write(other / "y.txt", "new text")

    with pytest.raises(ConfirmationNeededError, match="docs"):
        _sync(services, base, docs, other)

    assert "y.txt" not in _names(services, base)


def test_nobody_there_means_a_missing_or_empty_root_keeps_all_even_with_yes(
    services: Services, base: KnowledgeBase, docs: Path
) -> None:
    _sync(services, base, docs)
    for file in docs.iterdir():
        file.unlink()
    with pytest.raises(ConfirmationNeededError, match="without --watch"):
        _sync(services, base, docs, yes=True, unattended=True)

    _write(docs / "0.txt", TEXT.format(n=0))
    assert _sync(services, base, docs, yes=True, unattended=True).removed == 3


# Versions


def test_a_cited_version_stays_readable_until_no_answer_cites_it(
    services: Services, base: KnowledgeBase, docs: Path
) -> None:
    _write(docs / "urlaub.txt", "员工每年享有 12 天带薪年假。")
    _sync(services, base, docs)
    answer = services.chain.invoke(Question("员工每年有几天带薪年假？", (base.name,), 5))
    cited = next(c for c in answer.citations if c.document.endswith("urlaub.txt"))
    _write(docs / "urlaub.txt", "员工每年享有 15 天带薪年假。")
    _write(docs / "0.txt", "nobody cites this one")

    _sync(services, base, docs)

    with services.database.read() as session:
        document = find_document(session, base, cited.document_id)
        assert find_version(session, document, cited.version_id) == cited.version_id
        text = version_text(session, cited.version_id)
        assert text[cited.start : cited.end] == cited.quote
        assert version_text(session, document.version_id or 0).startswith("员工每年享有 15")
        assert _n_versions(services) == 6  # five documents and one older text
    with services.database.write() as session:
        redact_documents(session, [cited.document_id])

    _sync(services, base, docs)

    assert _n_versions(services) == 5


def test_a_sync_sweeps_versions_whose_answers_are_gone(
    services: Services, base: KnowledgeBase, docs: Path
) -> None:
    from sqlalchemy import delete

    from kb.storage.tables import TraceRow

    _write(docs / "urlaub.txt", "员工每年享有 12 天带薪年假。")
    _sync(services, base, docs)
    services.chain.invoke(Question("员工每年有几天带薪年假？", (base.name,), 5))
    _write(docs / "urlaub.txt", "员工每年享有 15 天带薪年假。")
    _sync(services, base, docs)
    with services.database.write() as session:
        session.execute(delete(TraceRow))
    assert _n_versions(services) == 6

    _sync(services, base, docs)

    assert _n_versions(services) == 5


def _n_versions(services: Services) -> int:
    from sqlalchemy import func, select

    from kb.storage.tables import DocumentVersionRow

    with services.database.read() as session:
        return session.scalar(select(func.count()).select_from(DocumentVersionRow)) or 0
