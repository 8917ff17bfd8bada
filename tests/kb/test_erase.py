"""Erased documents are gone from every byte of the data folder; what is not gone is found."""

import email.message
import hashlib
import json
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert, select

from ingest.loaders import LOADERS
from ingest.scan import FoundFile
from ingest.sync import SyncOptions, sync_folders, sync_uploads
from kb.errors import KBError, StorageError
from kb.records import Document, KnowledgeBase, Question
from kb.storage.bases import find_base
from kb.storage.documents import list_documents, remove_documents
from kb.storage.jobs import JobFile, create_job, finish_job
from kb.storage.tables import JobFileRow, JobRow, TraceRow
from kb.upkeep.erase import SKIPPED, Receipt, _search_files, erase
from kb.upkeep.evidence import gather
from kb.wiring import Services
from tests.building import add_document, make_base, open_services
from tests.ingest import office_samples as office
from tests.ingest.files_samples import pdf
from tests.ingest.pictures import drawn, encoded
from tests.ingest.test_mail import wide
from tests.kb.test_cli import Shell

# What every sample says; no other document says it.
SENTENCES = (
    "蓝鲸计划的预算是七百三十一万元。",
    "The whistleblower met Ottokar at dusk.",
    "编号 QX-7731-ZETA 的样机存放在地下三层。",
    "Quarterly turbine vibration exceeded ninety micrometres.",
    "负责人欧阳靖远于霜降后第二天签字。",
)
OTHER = "与此无关的文件：食堂每天中午十一点半开门。The canteen opens at noon. " * 20


def samples() -> dict[str, tuple[str, bytes]]:
    """Return a file for each loader: its name and its bytes."""
    lines = "\n\n".join(SENTENCES)
    paragraphs = "".join(f"<p>{sentence}</p>" for sentence in SENTENCES)
    table = "句子,数\n" + "".join(f"{sentence},1\n" for sentence in SENTENCES)
    text_body = "".join(f"<text:p>{sentence}</text:p>" for sentence in SENTENCES)
    message = email.message.EmailMessage()
    message["Subject"] = SENTENCES[0]
    message.set_content(lines)

    def slides(presentation: Any) -> None:
        for sentence in SENTENCES:
            slide = presentation.slides.add_slide(presentation.slide_layouts[1])
            slide.shapes.title.text = sentence
            slide.placeholders[1].text = sentence

    def rows(workbook: Any) -> None:
        for sentence in ("句子", *SENTENCES):
            workbook.active.append([sentence, len(sentence)])

    def word() -> bytes:
        import io

        from docx import Document as Word

        document = Word()
        for sentence in SENTENCES:
            document.add_paragraph(sentence)
        out = io.BytesIO()
        document.save(out)
        return out.getvalue()

    rtf = "".join(f"\\u{ord(c)}?" if ord(c) > 127 else c for c in "\\par ".join(SENTENCES))
    notebook = {
        "cells": [{"cell_type": "markdown", "metadata": {}, "source": lines}],
        "metadata": {},
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    return {
        "text": ("机密纪要-text.txt", lines.encode("gb18030")),
        "markdown": ("机密纪要-md.md", f"# {SENTENCES[0]}\n\n{lines}".encode()),
        "rst": ("机密纪要-rst.rst", lines.encode()),
        "html": ("机密纪要-html.html", f"<meta charset=utf-8>{paragraphs}".encode()),
        "pdf": ("机密纪要-pdf.pdf", pdf([SENTENCES], outline=[(SENTENCES[0], 0)])),
        "docx": ("机密纪要-docx.docx", word()),
        "pptx": ("机密纪要-pptx.pptx", office.pptx(slides)),
        "xlsx": ("机密纪要-xlsx.xlsx", office.xlsx(rows)),
        "xls": ("机密纪要-xls.xls", office.xls({(i, 0): s for i, s in enumerate(SENTENCES)})),
        "csv": ("机密纪要-csv.csv", table.encode()),
        "odt": ("机密纪要-odt.odt", office.odt(text_body)),
        "rtf": ("机密纪要-rtf.rtf", f"{{\\rtf1\\ansi {rtf}}}".encode()),
        "epub": ("机密纪要-epub.epub", office.epub([paragraphs])),
        "eml": ("机密纪要-eml.eml", message.as_bytes()),
        "msg": ("机密纪要-msg.msg", office.msg({"0037001F": wide("s"), "1000001F": wide(lines)})),
        "json": ("机密纪要-json.json", json.dumps(SENTENCES).encode()),
        "ipynb": ("机密纪要-ipynb.ipynb", json.dumps(notebook).encode()),
        "picture": ("机密纪要-picture.png", encoded(drawn([SENTENCES[1], SENTENCES[3]]))),
        "code": ("机密纪要-code.py", "".join(f"# {s}\n" for s in SENTENCES).encode()),
    }


def pieces() -> list[bytes]:
    """Return parts of the sentences as they might be stored anywhere."""
    parts = [s[i : i + 8] for s in SENTENCES for i in range(0, len(s) - 8, 4)]
    return [
        form
        for part in parts
        for form in (part.encode(), part.encode("utf-16-le"), json.dumps(part)[1:-1].encode())
    ]


def files_holding(home: Path, wanted: list[bytes]) -> list[str]:
    """Search without any code of ours."""
    return [
        f"{path.relative_to(home)} holds {piece!r}"
        for path in sorted(home.rglob("*"))
        if path.is_file()
        for data in [path.read_bytes()]
        for piece in wanted
        if piece in data
    ]


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    with open_services(tmp_path / "home") as opened:
        yield opened


def documents(services: Services, kb: str = "test") -> dict[str, Document]:
    with services.database.read() as session:
        found, _ = list_documents(session, find_base(session, kb).id)
    return {document.path: document for document in found}


def erased(services: Services, *chosen: Document, wait_s: float = 0.2) -> Receipt:
    return erase(services.database, services.retriever, services.blobs, chosen, wait_s=wait_s)


@pytest.fixture
def base(services: Services) -> KnowledgeBase:
    base = make_base(services.database)
    add_document(services.database, base, "secret.txt", list(SENTENCES))
    add_document(services.database, base, "other.txt", [OTHER])
    services.retriever.view(base).save()
    return base


def home_of(services: Services) -> Path:
    return services.settings.home


@pytest.mark.slow
def test_a_document_of_every_format_leaves_no_byte_behind(
    services: Services, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kb = Shell(services, capsys)
    folder = tmp_path / "docs"
    folder.mkdir()
    for name, data in samples().values():
        (folder / name).write_bytes(data)
    (folder / "other.txt").write_text(OTHER, encoding="utf-8")
    assert kb("ingest", str(folder))[0] == 0
    kb("ask", "蓝鲸计划的预算是多少？")
    with services.database.read() as session:
        services.retriever.view(find_base(session, "default")).save()
    before = files_holding(home_of(services), pieces())
    names = [name for name, _ in samples().values()]

    receipt = kb.json("docs", "remove", *names, "--prove", "--yes")

    assert before
    assert files_holding(home_of(services), pieces()) == []
    # The database names them no more, in no report either.
    assert files_holding(home_of(services), ["机密纪要".encode(), b"\\u673a\\u5bc6\\u7eaa"]) == []
    assert receipt["found"] == []
    assert {row["name"].split("/")[-1] for row in receipt["documents"]} == set(names)
    assert all((row["file"] or "").startswith(str(folder)) for row in receipt["documents"])
    assert kb("verify")[0] == 0
    assert [row["path"] for row in kb.json("docs", "list")] == ["other.txt"]


def test_every_loader_has_a_sample_here_but_those_that_need_libreoffice() -> None:
    missing = {module for module, _ in LOADERS.values()} - samples().keys()

    assert missing == {"doc", "ppt"}


def test_a_document_is_proven_by_strings_of_its_own(
    services: Services, base: KnowledgeBase
) -> None:
    receipt = erased(services, documents(services)["secret.txt"])

    assert receipt.proven
    assert receipt.documents[0].strings >= 5
    assert files_holding(home_of(services), pieces()) == []
    hits = services.retriever.search(Question("食堂几点开门", ("test",), 3)).hits
    assert [hit.document for hit in hits] == ["other.txt"]


def test_a_plain_removal_leaves_bytes_that_the_search_finds(
    services: Services, base: KnowledgeBase
) -> None:
    document = documents(services)["secret.txt"]
    evidence = gather(services.database, services.blobs, [document])
    with services.database.write() as session:
        remove_documents(session, base.id, [document.id])

    places = list(_search_files(home_of(services), evidence.marks))

    assert any(place.found for place in places)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16-le", "utf-16-be"])
def test_a_forgotten_copy_in_the_data_folder_is_found(
    services: Services, base: KnowledgeBase, encoding: str
) -> None:
    copy = home_of(services) / "eval" / "copy of secret.txt"
    copy.parent.mkdir()
    copy.write_bytes("".join(SENTENCES).encode(encoding))

    receipt = erased(services, documents(services)["secret.txt"])

    assert not receipt.proven
    assert all("eval/copy of secret.txt" in found for found in receipt.found)


def test_a_copy_of_the_vectors_is_found(services: Services, base: KnowledgeBase) -> None:
    snapshot = next((home_of(services) / "index" / base.id).glob("*.faiss"))
    (home_of(services) / "old.faiss").write_bytes(snapshot.read_bytes())

    receipt = erased(services, documents(services)["secret.txt"])

    assert {found.split()[3] for found in receipt.found} == {"vector"}


def test_text_that_another_document_holds_proves_nothing(
    services: Services, base: KnowledgeBase, capsys: pytest.CaptureFixture[str]
) -> None:
    add_document(services.database, base, "twin.txt", list(SENTENCES))

    receipt = erased(services, documents(services)["secret.txt"])

    assert receipt.found == ()
    assert not receipt.proven
    assert "twin.txt in knowledge base test has the same bytes" in receipt.weak[0]


@pytest.mark.parametrize(
    ("text", "is_proven"), [("密码是九八七六", True), ("年假三天", True), ("是", False)]
)
def test_of_a_short_text_the_whole_is_looked_for(
    services: Services, base: KnowledgeBase, text: str, is_proven: bool
) -> None:
    add_document(services.database, base, "short.txt", [text])

    receipt = erased(services, documents(services)["short.txt"])

    assert receipt.found == ()
    assert receipt.proven is is_proven


def test_a_data_folder_of_links_is_searched_behind_them(
    services: Services, base: KnowledgeBase, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "another disk"
    elsewhere.mkdir()
    (elsewhere / "copy").write_text("".join(SENTENCES), encoding="utf-8")
    (elsewhere / "back").symlink_to(home_of(services))
    (home_of(services) / "more").symlink_to(elsewhere)

    receipt = erased(services, documents(services)["secret.txt"])

    assert any("more/copy" in found for found in receipt.found)


def test_a_document_without_text_needs_no_strings(services: Services, base: KnowledgeBase) -> None:
    add_document(services.database, base, "empty.txt", [])

    assert erased(services, documents(services)["empty.txt"]).proven


def test_stored_answers_lose_question_and_answer(
    services: Services, base: KnowledgeBase, capsys: pytest.CaptureFixture[str]
) -> None:
    kb = Shell(services, capsys)
    kb("ask", "蓝鲸计划的预算是多少？", "--kb", "test")
    with services.database.write() as session:
        session.execute(
            insert(TraceRow).values(
                id="f" * 32,
                question=f"What does this mean: {SENTENCES[1]}",
                answer="I do not know",
                refused=True,
                support=0.0,
                model="none",
                timings={},
                created_at="",
            )
        )

    receipt = erased(services, documents(services)["secret.txt"])

    with services.database.read() as session:
        rows = session.execute(select(TraceRow.question, TraceRow.is_redacted)).all()
    assert [tuple(row) for row in rows] == [("[removed with its document]", True)] * 2
    assert receipt.proven


def test_reports_of_jobs_forget_the_name_and_earlier_names(
    services: Services, base: KnowledgeBase
) -> None:
    report = {
        "changes": {"moved": ["draft secret.txt → secret.txt"], "added": ["a.txt"]},
        "failed": [{"path": "secret.txt", "error": "cannot be read"}],
    }
    with services.database.write() as session:
        files = [JobFile(path, "0" * 64, 1) for path in ("secret.txt", "other.txt")]
        job = create_job(session, base.id, "upload", files=files, owner="me")
        finish_job(session, job.id, "me", state="done", report=report)

    receipt = erased(services, documents(services)["secret.txt"])

    with services.database.read() as session:
        stored = session.scalars(select(JobRow.report)).one()
        paths = session.scalars(select(JobFileRow.path)).all()
    assert stored == {
        "changes": {"moved": ["[removed]"], "added": ["a.txt"]},
        "failed": [{"path": "[removed]", "error": "cannot be read"}],
    }
    assert paths == ["other.txt"]
    assert receipt.proven
    assert files_holding(home_of(services), [b"secret.txt"]) == []


def test_uploaded_bytes_backups_and_old_snapshots_go(
    services: Services, base: KnowledgeBase
) -> None:
    data = "\n".join(SENTENCES).encode()
    with services.blobs.stage() as staged:
        staged.write(data)
        sha256 = staged.finish()
        services.blobs.adopt([staged])
    upload = FoundFile("上传.txt", services.blobs.path(sha256), len(data), "", sha256)
    sync_uploads(services.sync_parts, base, [upload], "", SyncOptions())
    database = services.database
    (home_of(services) / "kb.sqlite3.before-upgrade").write_bytes(database.path.read_bytes())
    (home_of(services) / "kb.sqlite3.before-upgrade.tmp").write_bytes(data)
    found = documents(services)

    receipt = erased(services, found["上传.txt"], found["secret.txt"])

    assert receipt.found == ()
    assert files_holding(home_of(services), pieces()) == []
    assert not services.blobs.path(sha256).exists()


def test_bytes_that_another_upload_needs_stay_and_are_told(
    services: Services, base: KnowledgeBase
) -> None:
    data = "\n".join(SENTENCES).encode()
    sha256 = hashlib.sha256(data).hexdigest()
    services.blobs.folder.mkdir()
    services.blobs.path(sha256).write_bytes(data)
    for path in ("one.txt", "two.txt"):
        upload = FoundFile(path, services.blobs.path(sha256), len(data), "", sha256)
        sync_uploads(services.sync_parts, base, [upload], "", SyncOptions())

    receipt = erased(services, documents(services)["one.txt"])

    assert not receipt.proven
    assert any("another document has the same bytes" in found for found in receipt.found)
    assert services.blobs.path(sha256).exists()


def test_a_running_job_is_in_the_way(services: Services, base: KnowledgeBase) -> None:
    with services.database.write() as session:
        create_job(session, base.id, "ingest", owner="somebody")

    with pytest.raises(KBError, match=r"an ingest is running .* nothing was changed"):
        erased(services, documents(services)["secret.txt"])
    assert "secret.txt" in documents(services)


def test_a_reader_of_an_older_state_is_in_the_way(services: Services, base: KnowledgeBase) -> None:
    reader = sqlite3.connect(services.database.path, isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM document").fetchone()
    add_document(services.database, base, "later.txt", ["written after the reader began"])
    started = time.monotonic()

    with pytest.raises(StorageError, match=r"has been reading the .* nothing was changed"):
        erased(services, documents(services)["secret.txt"])

    reader.close()
    assert time.monotonic() - started < 10
    assert "secret.txt" in documents(services)
    assert erased(services, documents(services)["secret.txt"]).proven


def test_what_an_interrupted_erasure_left_is_cleared_without_naming_a_document(
    services: Services, base: KnowledgeBase
) -> None:
    with services.database.write() as session:
        remove_documents(session, base.id, [documents(services)["secret.txt"].id])
    before = files_holding(home_of(services), pieces())

    receipt = erased(services)

    assert before
    assert files_holding(home_of(services), pieces()) == []
    assert receipt.documents == ()


def test_folders_of_killed_benchmarks_go_and_models_are_not_searched(
    services: Services, base: KnowledgeBase
) -> None:
    import os

    old = home_of(services) / "bench" / "tmpabc"
    old.mkdir(parents=True)
    (old / "kb.sqlite3").write_text("".join(SENTENCES))
    long_ago = time.time() - 7200
    for path in (old / "kb.sqlite3", old):
        os.utime(path, (long_ago, long_ago))
    weights = home_of(services) / SKIPPED[0] / "chatglm"
    weights.mkdir(parents=True)
    (weights / "weights.bin").write_text("".join(SENTENCES))

    receipt = erased(services, documents(services)["secret.txt"])

    assert receipt.proven
    assert not old.exists()
    assert receipt.skipped == ("models/ (weights of models)",)


def test_the_command_says_what_comes_back(
    services: Services, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kb = Shell(services, capsys)
    file = tmp_path / "docs" / "纪要.txt"
    file.parent.mkdir()
    file.write_text("\n".join(SENTENCES), encoding="utf-8")
    kb("ingest", str(file.parent))

    code, out = kb("docs", "remove", "纪要.txt", "--prove", "--yes")

    assert code == 0
    assert f"{file} is still there" in out
    assert "erased: nothing was found of 1 documents" in out
    assert kb("docs", "remove")[0] == 2
    assert kb("docs", "remove", "--prove")[0] == 0


def test_an_ingest_after_the_removal_works_as_before(
    services: Services, base: KnowledgeBase, tmp_path: Path
) -> None:
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "neu.txt").write_text("Die Pumpe wird alle vier Wochen gewartet.")
    erased(services, documents(services)["secret.txt"])

    report = sync_folders(services.sync_parts, base, [folder], SyncOptions())

    assert report.added == 1
    hits = services.retriever.search(Question("Pumpe gewartet", ("test",), 1)).hits
    assert hits[0].document.endswith("neu.txt")
