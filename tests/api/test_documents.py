"""Uploading, listing, reading and removing documents over HTTP."""

import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import update

from ingest.sync import SyncOptions, sync_folders
from kb.storage.bases import find_base
from kb.storage.tables import KnowledgeBaseRow
from kb.wiring import Services


def paths_in(client: TestClient, kb: str, **query: Any) -> list[str]:
    listed = client.get(f"/kb/{kb}/documents", params=query).json()
    return [document["path"] for document in listed["documents"]]


def document_at(client: TestClient, kb: str, path: str) -> dict[str, Any]:
    listed = client.get(f"/kb/{kb}/documents", params={"limit": 1000}).json()["documents"]
    return next(document for document in listed if document["path"] == path)


def test_a_knowledge_base_is_made_renamed_and_deleted(client: TestClient) -> None:
    made = client.post("/kb", json={"name": "手册"})
    kb = made.json()["id"]
    taken = client.post("/kb", json={"name": "手册"})
    changed = client.patch(f"/kb/{kb}", json={"name": "规章", "support_threshold": 1})
    listed = client.get("/kb").json()["kbs"]
    deleted = client.delete("/kb/规章")

    assert made.status_code == 201
    assert taken.status_code == 409
    assert taken.json()["error"]["type"] == "AlreadyExistsError"
    assert (changed.json()["id"], changed.json()["name"]) == (kb, "规章")
    assert changed.json()["support_threshold"] == 1.0
    assert listed == [changed.json()]
    assert set(listed[0]) == {
        "id", "name", "documents", "chunks", "failed", "embedder", "support_threshold",
        "created_at",
    }  # fmt: skip
    assert (deleted.status_code, deleted.content) == (204, b"")
    assert client.get(f"/kb/{kb}").status_code == 404


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"support_threshold": 2}, "support_threshold"),
        ({"support_threshold": -0.1}, "support_threshold"),
        ({"support_threshold": "high"}, "support_threshold"),
        ({"name": ""}, "name"),
        ({"name": 7}, "name"),
        ({"title": "x"}, "title"),
    ],
)
def test_a_bad_change_is_refused(shared: Any, body: dict[str, Any], field: str) -> None:
    reply = shared.client.patch(f"/kb/{shared.handbook}", json=body)

    assert reply.status_code == 422
    assert field in reply.json()["error"]["message"]
    assert shared.client.get(f"/kb/{shared.handbook}").json()["name"] == "手册"


def test_a_threshold_that_is_no_number_is_refused(shared: Any) -> None:
    reply = shared.client.patch(
        f"/kb/{shared.handbook}",
        content=b'{"support_threshold": NaN}',
        headers={"Content-Type": "application/json"},
    )

    assert reply.status_code == 422


def test_an_upload_is_answered_with_a_job_that_makes_documents(
    client: TestClient, handbook: str
) -> None:
    listed = client.get(f"/kb/{handbook}/documents").json()
    base = client.get(f"/kb/{handbook}").json()

    assert listed["total"] == 2
    first, second = listed["documents"]
    assert (first["path"], second["path"]) == ("handbook.md", "manual.md")
    assert (first["status"], first["stale"], first["error"]) == ("ready", False, None)
    assert first["source"] == {"kind": "upload", "label": ""}
    assert first["size_bytes"] > 0
    assert base["documents"] == 2
    assert base["chunks"] == first["chunks"] + second["chunks"]


def test_a_job_reports_each_file(client: TestClient, upload: Any) -> None:
    client.post("/kb", json={"name": "base"})

    job = upload("base", {"good.md": "# Good\n\nText.", "empty.txt": "", "odd.xyz": b"\x00\x01"})

    assert job["state"] == "done"
    assert job["kind"] == "upload"
    assert {f["path"]: f["state"] for f in job["files"]} == {
        "good.md": "done",
        "empty.txt": "empty",
        "odd.xyz": "failed",
    }
    assert job["progress"]["files_done"] == job["progress"]["files_total"] == 3
    assert job["report"]["added"] >= 1
    [failed] = job["report"]["failed"]
    assert failed["path"] == "odd.xyz"
    assert failed["error"] == next(f["error"] for f in job["files"] if f["path"] == "odd.xyz")


def test_a_folder_dropped_again_shows_what_changed(client: TestClient, upload: Any) -> None:
    client.post("/kb", json={"name": "base"})
    first = {f"docs/{i}.md": f"# 第 {i} 章\n\n内容 {i}。" for i in range(4)}
    upload("base", {"other.md": "Stays."})
    upload("base", first, root="docs", prune=True)
    second = dict(first) | {"docs/1.md": "# 第 1 章\n\n新的内容。", "docs/9.md": "新文件"}
    del second["docs/3.md"]

    job = upload("base", second, root="docs", prune=True)

    report = job["report"]
    assert (report["added"], report["changed"], report["removed"]) == (1, 1, 1)
    assert report["changes"]["removed"] == ["docs/3.md"]
    kept = [f"docs/{i}.md" for i in (0, 1, 2, 9)]
    assert paths_in(client, "base") == [*kept, "other.md"]


def test_a_sync_that_removes_much_fails_until_it_is_confirmed(
    client: TestClient, upload: Any
) -> None:
    client.post("/kb", json={"name": "base"})
    upload("base", {f"d/{i}.md": f"Chapter {i}." for i in range(4)}, root="d", prune=True)

    asked = upload("base", {"d/0.md": "Chapter 0."}, root="d", prune=True)
    confirmed = upload("base", {"d/0.md": "Chapter 0."}, root="d", prune=True, yes=True)

    assert (asked["state"], asked["error_type"]) == ("failed", "ConfirmationNeededError")
    assert confirmed["state"] == "done"
    assert paths_in(client, "base") == ["d/0.md"]


def test_files_without_their_folder_are_put_below_the_root(client: TestClient, upload: Any) -> None:
    client.post("/kb", json={"name": "base"})

    upload("base", {"a.md": "One.", "sub/b.md": "Two."}, root="docs")

    assert paths_in(client, "base") == ["docs/a.md", "docs/sub/b.md"]


def test_documents_are_listed_in_pages_and_filtered(client: TestClient, upload: Any) -> None:
    client.post("/kb", json={"name": "base"})
    upload("base", {f"年/{i}.md": f"Text {i}." for i in range(5)} | {"100%.md": "x", "b.xyz": "y"})

    assert paths_in(client, "base", limit=2, offset=1) == ["b.xyz", "年/0.md"]
    assert paths_in(client, "base", status="failed") == ["b.xyz"]
    assert len(paths_in(client, "base", status="ready")) == 6
    assert paths_in(client, "base", q="年/3") == ["年/3.md"]
    assert paths_in(client, "base", q="%") == ["100%.md"]
    assert paths_in(client, "base", offset=1000) == []
    assert client.get("/kb/base/documents", params={"limit": 1}).json()["total"] == 7


@pytest.mark.parametrize(
    "query",
    [{"limit": 0}, {"limit": 1001}, {"offset": -1}, {"offset": 10**30}, {"status": "odd"}],
)
def test_a_bad_page_is_refused(shared: Any, query: dict[str, Any]) -> None:
    reply = shared.client.get(f"/kb/{shared.handbook}/documents", params=query)

    assert reply.status_code == 422
    assert next(iter(query)) in reply.json()["error"]["message"]


def test_chunks_are_spans_of_the_text(client: TestClient, handbook: str) -> None:
    document = document_at(client, handbook, "handbook.md")
    url = f"/kb/{handbook}/documents/{document['id']}"

    text = client.get(f"{url}/text").json()
    chunks = client.get(f"{url}/chunks").json()["chunks"]

    assert client.get(url).json() == document
    assert text["pages"] == []
    assert isinstance(text["version_id"], int)
    assert len(chunks) == document["chunks"]
    assert [chunk["position"] for chunk in chunks] == list(range(len(chunks)))
    for chunk in chunks:
        assert text["text"][chunk["start"] : chunk["end"]] == chunk["text"]


def test_an_old_answers_citation_opens_the_text_it_was_made_from(
    client: TestClient, handbook: str, upload: Any
) -> None:
    question = {"question": "满五年的员工每年有几天年假？"}
    answer = client.post(f"/kb/{handbook}/ask", json=question).json()
    citation = answer["citations"][0]
    version = {"version": citation["version_id"]}
    documents = f"/kb/{handbook}/documents"
    url = f"{documents}/{citation['document_id']}"
    listed = client.get(documents).json()["documents"]
    other = next(row["id"] for row in listed if row["id"] != citation["document_id"])
    upload(handbook, {citation["document"]: "# 年假\n\n现在全体员工每年享有 30 天年假。"})

    old = client.get(f"{url}/text", params=version).json()
    current = client.get(f"{url}/text").json()
    unknown = client.get(f"{url}/text", params={"version": 10**6})
    foreign = client.get(f"{documents}/{other}/text", params=version)
    client.delete(url)
    removed = client.get(f"{url}/text", params=version)

    assert old["superseded"]
    assert old["text"][citation["start"] : citation["end"]] == citation["quote"]
    assert not current["superseded"]
    assert "30 天" in current["text"]
    assert (unknown.status_code, foreign.status_code, removed.status_code) == (404, 404, 404)
    assert unknown.json()["error"]["type"] == "VersionNotFoundError"


def test_a_document_without_text_has_an_empty_one(client: TestClient, upload: Any) -> None:
    client.post("/kb", json={"name": "base"})
    upload("base", {"empty.txt": "", "bad.xyz": "x"})

    for path in ("empty.txt", "bad.xyz"):
        url = f"/kb/base/documents/{document_at(client, 'base', path)['id']}"

        assert client.get(f"{url}/text").json()["text"] == ""
        assert client.get(f"{url}/chunks").json() == {"chunks": []}


def test_the_original_bytes_come_back_as_a_file_to_save(client: TestClient, upload: Any) -> None:
    client.post("/kb", json={"name": "base"})
    original = "\ufeff# 年假\r\n\r\n十五天。".encode()
    upload("base", {"规章/a;b 1.html": original})
    document = document_at(client, "base", "规章/a;b 1.html")

    reply = client.get(f"/kb/base/documents/{document['id']}/content")

    assert reply.content == original
    assert reply.headers["content-length"] == str(len(original))
    assert reply.headers["content-type"] == "application/octet-stream"
    assert reply.headers["content-disposition"] == "attachment; filename*=UTF-8''a%3Bb%201.html"
    assert reply.headers["content-security-policy"] == "default-src 'none'; sandbox"
    assert reply.headers["x-content-type-options"] == "nosniff"


def test_a_failed_upload_can_be_saved_too(client: TestClient, upload: Any) -> None:
    client.post("/kb", json={"name": "base"})
    upload("base", {"odd.xyz": b"\x00\x01"})
    document = document_at(client, "base", "odd.xyz")

    reply = client.get(f"/kb/base/documents/{document['id']}/content")

    assert reply.content == b"\x00\x01"


def test_a_file_of_a_folder_is_given_only_while_it_is_the_one_that_was_read(
    client: TestClient, services: Services, tmp_path: Path
) -> None:
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "a.md").write_text("Version one.")
    client.post("/kb", json={"name": "base"})
    with services.database.read() as session:
        base = find_base(session, "base")
    sync_folders(services.sync_parts, base, [folder], SyncOptions())
    document = document_at(client, "base", "a.md")
    url = f"/kb/base/documents/{document['id']}/content"
    secret = tmp_path / "secret"
    secret.write_text("Not yours.")

    as_read = client.get(url)
    (folder / "a.md").unlink()
    gone = client.get(url)
    (folder / "a.md").symlink_to(secret)
    replaced = client.get(url)

    assert document["source"]["kind"] == "folder"
    assert (as_read.status_code, as_read.text) == (200, "Version one.")
    assert gone.status_code == 404
    assert replaced.status_code == 409
    assert "Not yours" not in replaced.text


def test_removing_a_document_removes_it_from_search_and_its_bytes_from_disk(
    client: TestClient, services: Services, handbook: str
) -> None:
    document = document_at(client, handbook, "manual.md")
    question = {"question": "Replace the seal every how many hours?"}
    before = client.post(f"/kb/{handbook}/search", json=question).json()["hits"]

    removed = client.delete(f"/kb/{handbook}/documents/{document['id']}")

    after = client.post(f"/kb/{handbook}/search", json=question).json()["hits"]
    assert removed.status_code == 204
    assert "manual.md" in {hit["document"] for hit in before}
    assert "manual.md" not in {hit["document"] for hit in after}
    assert len(os.listdir(services.blobs.folder)) == 1
    assert client.get(f"/kb/{handbook}/documents/{document['id']}").status_code == 404


def test_bytes_that_two_documents_share_stay_until_both_are_gone(
    client: TestClient, services: Services, upload: Any
) -> None:
    client.post("/kb", json={"name": "one"})
    client.post("/kb", json={"name": "two"})
    upload("one", {"a.md": "Shared text."})
    upload("two", {"b.md": "Shared text."})

    client.delete("/kb/one")
    kept = os.listdir(services.blobs.folder)
    client.delete(f"/kb/two/documents/{document_at(client, 'two', 'b.md')['id']}")

    assert len(kept) == 1
    assert os.listdir(services.blobs.folder) == []


def test_replaced_bytes_are_removed(client: TestClient, services: Services, upload: Any) -> None:
    client.post("/kb", json={"name": "base"})
    upload("base", {"a.md": "Version one."})
    upload("base", {"a.md": "Version two."})

    document = document_at(client, "base", "a.md")
    content = client.get(f"/kb/base/documents/{document['id']}/content").text
    assert content == "Version two."
    assert len(os.listdir(services.blobs.folder)) == 1


def test_two_files_of_one_name_are_refused_unless_they_are_the_same(
    client: TestClient, services: Services, handbook: str
) -> None:
    before = os.listdir(services.blobs.folder)

    different = client.post(
        f"/kb/{handbook}/documents", files=[("files", ("a.md", b"1")), ("files", ("./a.md", b"2"))]
    )
    same = client.post(
        f"/kb/{handbook}/documents", files=[("files", ("b.md", b"1")), ("files", ("b.md", b"1"))]
    )

    assert different.status_code == 422
    assert "'a.md'" in different.json()["error"]["message"]
    assert same.status_code == 202
    assert len(same.json()["job"]["files"]) == 1
    assert set(before) <= set(os.listdir(services.blobs.folder))


FORM = "multipart/form-data; boundary=X"


def part(disposition: bytes, content: bytes = b"1", end: bytes = b"\r\n--X--\r\n") -> bytes:
    header = b"--X\r\nContent-Disposition: form-data; " + disposition
    return header + b"\r\n\r\n" + content + end


@pytest.mark.parametrize(
    ("type_", "body", "status"),
    [
        ("application/json", b"{}", 415),
        ("multipart/form-data", b"", 415),
        ("application/x-www-form-urlencoded", b"files=x", 415),
        ("", b"", 415),
        (f"multipart/form-data; boundary={'X' * 5000}", b"", 400),
        (FORM, b"", 400),
        (FORM, b"no multipart at all", 400),
        (FORM, b"--X--\r\n", 422),
        (FORM, part(b'name="files"; filename="a.txt"', b"cut off", end=b""), 400),
        (FORM, part(b'name="files"; filename="a.txt"', b"cut off", end=b"\r\n--X"), 400),
        (FORM, part(b'name="files"; filename=""', b""), 422),
        (FORM, part(b'name="files"', b"text"), 422),
        (FORM, part(b'name="other"; filename="a"'), 422),
        (FORM, b"--X\r\nContent-Type: text/plain\r\n\r\n1\r\n--X--\r\n", 422),
        (FORM, b"--X\r\nA: " + b"a" * 100_000 + b"\r\n\r\n", 400),
        (FORM, b"--X\r\n" + b"A: b\r\n" * 1000, 400),
    ],
)
def test_a_body_that_is_no_upload_is_refused_and_leaves_nothing(
    shared: Any, type_: str, body: bytes, status: int
) -> None:
    folder = shared.services.blobs.folder
    before = sorted(os.listdir(folder))

    reply = shared.client.post(
        f"/kb/{shared.handbook}/documents", content=body, headers={"Content-Type": type_}
    )

    assert reply.status_code == status, reply.text
    assert set(reply.json()["error"]) == {"type", "message"}
    assert sorted(os.listdir(folder)) == before


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"prune": True}, "prune"),
        ({"prune": "maybe", "root": "x"}, "prune"),
        ({"yes": "7", "root": "x"}, "yes"),
        ({"root": "a" * 2000}, "characters"),
    ],
)
def test_bad_upload_options_are_refused(shared: Any, query: dict[str, Any], field: str) -> None:
    reply = shared.client.post(
        f"/kb/{shared.handbook}/documents", params=query, files=[("files", ("a.md", b"1"))]
    )

    assert reply.status_code == 422
    assert field in reply.json()["error"]["message"]


def test_a_client_that_leaves_midway_leaves_nothing_behind(
    shared: Any, caplog: pytest.LogCaptureFixture
) -> None:
    folder = shared.services.blobs.folder
    before = sorted(os.listdir(folder))
    url = shared.real.base_url
    head = (
        f"POST /kb/{shared.handbook}/documents HTTP/1.1\r\nHost: {url.host}:{url.port}\r\n"
        f"Content-Type: {FORM}\r\nContent-Length: 1000000\r\n\r\n"
    )
    beginning = part(b'name="files"; filename="a.txt"', b"x" * 100_000, end=b"")

    with socket.create_connection((url.host, url.port)) as connection:
        connection.sendall(head.encode() + beginning)
        wait_until(lambda: len(os.listdir(folder)) > len(before))
    wait_until(lambda: sorted(os.listdir(folder)) == before)

    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def wait_until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_full_disk_stops_an_upload_with_a_clear_reason(
    client: TestClient, services: Services, handbook: str
) -> None:
    """A folder that cannot be written stands in for a full disk: the same error comes of it."""
    folder = services.blobs.folder
    folder.rename(folder.with_name("elsewhere"))
    folder.write_text("a file where the folder should be")

    reply = client.post(f"/kb/{handbook}/documents", files=[("files", ("a.md", b"1"))])

    assert reply.status_code == 503
    assert reply.json()["error"]["type"] == "StorageError"
    assert "retry-after" in reply.headers


def test_names_in_the_encoding_of_chinese_systems_are_read(
    client: TestClient, wait_for_job: Callable[..., dict[str, Any]]
) -> None:
    client.post("/kb", json={"name": "base"})
    body = (
        b'--X\r\nContent-Disposition: form-data; name="files"; filename="'
        + "年假规定.txt".encode("gb18030")
        + b'"\r\n\r\ntext\r\n--X--\r\n'
    )

    reply = client.post(
        "/kb/base/documents",
        content=body,
        headers={"Content-Type": "multipart/form-data; boundary=X"},
    )
    wait_for_job(client, reply.json()["job"]["id"])

    assert paths_in(client, "base") == ["年假规定.txt"]


def test_flags_are_part_of_a_document(client: TestClient, upload: Any) -> None:
    client.post("/kb", json={"name": "base"})

    job = upload("base", {"a.html": "<p>年假十天。</p><p hidden>藏着</p>", "b.md": "Text."})

    flag = {
        "kind": "invisible_text",
        "detail": "left out: 2 characters of text hidden by its style",
    }
    assert document_at(client, "base", "a.html")["flags"] == [flag]
    assert document_at(client, "base", "b.md")["flags"] == []
    assert job["report"]["notes"] == [{"path": "a.html", "note": flag["detail"]}]


def test_files_for_a_base_of_an_older_version_are_refused_before_they_are_sent(
    client: TestClient, services: Services, handbook: str
) -> None:
    with services.database.write() as session:
        session.execute(update(KnowledgeBaseRow).values(fulltext="old/0"))

    before = sorted(services.blobs.folder.rglob("*"))
    refused = client.post(f"/kb/{handbook}/documents", files={"files": ("b.txt", b"new")})

    assert sorted(services.blobs.folder.rglob("*")) == before
    assert refused.status_code == 409
    assert "kb verify --repair" in refused.json()["error"]["message"]
    assert "b.txt" not in paths_in(client, handbook)
