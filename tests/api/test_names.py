"""Names that clients send are text to show: on no route do they become a path or break a reply."""

import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.uploads import MAX_PATH_CHARS, display_path
from kb.errors import InvalidInputError
from kb.wiring import Services

Wait = Callable[..., dict[str, Any]]

HOSTILE = [
    "../", "../../etc/passwd", "..\\..\\windows\\win.ini", "/etc/passwd", "C:\\Windows\\win.ini",
    "\\\\server\\share\\x", "a\0b", "\0", "..", ".", "a/../../b", "....//....//x", "%2e%2e%2fx",
    "..%c0%af..", "\u2025/\u2025", "a" * 300, "年" * 300, "😀👨‍👩‍👧.txt", "年假.md",
    "\u202ecod.exe", "\u2067abc\u2069", "a\nb", "a\r\nSet-Cookie: x=1", "a\x1b[31mb", "a;b|c$(d)",
    "' OR 1=1 --", "<script>alert(1)</script>", '"quoted"', "con", "aux.txt", ".hidden", "~",
    "~root", "-rf", "a" * 64, "sqlite_master", "{{7*7}}", "null", "undefined", "\ufeffbom",
    "file:///etc/passwd", "http://127.0.0.1:1/x", "name.", "name ", " ",
]  # fmt: skip

DISPLAY = [
    ("a/b.txt", "a/b.txt"),
    ("../../etc/passwd", "etc/passwd"),
    ("..\\..\\C:\\a/./b.txt", "a/b.txt"),
    ("/abs/x.md", "abs/x.md"),
    ("C:\\Users\\me\\x.md", "Users/me/x.md"),
    ("C:", ""),
    ("\\\\server\\share\\x", "server/share/x"),
    ("a\0b\x1b[31m.txt", "ab[31m.txt"),
    ("a\r\nb", "ab"),
    ("\u202etxt.exe", "txt.exe"),
    ("re\u0301sume\u0301.md", "r\u00e9sum\u00e9.md"),  # NFC, as in folders
    ("年假 说明.md", "年假 说明.md"),
    ("👨‍👩‍👧.txt", "👨‍👩‍👧.txt"),
    ("a//b///c", "a/b/c"),
    ("../", ""),
    ("", ""),
    (" / ", ""),
    ("a: notes.txt", "a: notes.txt"),
    ("....", "...."),
]


def everything_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def in_path(name: str) -> str:
    """Percent-encode a name for one path segment; dots too, or the client would resolve them."""
    return quote(name, safe="").replace(".", "%2E")


@pytest.mark.parametrize(("name", "shown"), DISPLAY)
def test_what_a_file_name_is_shown_as(name: str, shown: str) -> None:
    assert display_path(name) == shown


def test_a_display_path_is_its_own_display_path() -> None:
    for name in HOSTILE:
        once = display_path(name)

        assert display_path(once) == once
        assert not os.path.isabs(once)
        assert ".." not in once.split("/")


@given(st.text(max_size=200))
def test_no_text_becomes_a_path_that_leads_out(name: str) -> None:
    shown = display_path(name)

    assert display_path(shown) == shown
    assert not os.path.isabs(shown)
    assert not {"", ".", ".."} & set(shown.split("/")) or not shown
    assert not [c for c in shown if c == "\\" or ord(c) < 32]
    shown.encode("utf-8")


def test_a_file_name_too_long_to_show_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="characters"):
        display_path("a" * (MAX_PATH_CHARS + 1))


@pytest.fixture
def real(shared: Any) -> httpx.Client:
    """A client over a socket: the one within the process decodes a path twice."""
    client: httpx.Client = shared.real
    return client


@pytest.fixture
def services(shared: Any) -> Services:
    opened: Services = shared.services
    return opened


@pytest.fixture
def handbook(shared: Any) -> str:
    kb: str = shared.handbook
    return kb


@pytest.mark.parametrize("name", HOSTILE)
def test_a_knowledge_base_name_is_taken_as_text_or_refused(
    real: httpx.Client, services: Services, name: str
) -> None:
    before = everything_in(services.settings.home)

    reply = real.post("/kb", json={"name": name})

    assert reply.status_code in (201, 422), reply.text
    if reply.status_code == 201:
        base = reply.json()
        found = real.get(f"/kb/{in_path(base['name'])}")
        assert (found.status_code, found.json()["id"]) == (200, base["id"])
        assert not set(base["name"]) & set("/\\\0\n\r\u202e")
        real.delete(f"/kb/{base['id']}")
    else:
        assert reply.json()["error"]["message"].startswith("name")
    # New entries are the database's own companions only.
    assert all("kb.sqlite3" in path for path in everything_in(services.settings.home) - before)


@pytest.mark.parametrize("name", ["0" * 32, "deadbeef" * 4])
def test_a_name_that_looks_like_an_id_is_refused(real: httpx.Client, name: str) -> None:
    assert real.post("/kb", json={"name": name}).status_code == 422


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_on_any_route_is_a_clean_4xx(
    real: httpx.Client, handbook: str, services: Services, name: str
) -> None:
    bad = in_path(name)
    ask = {"question": "x"}
    before = everything_in(services.settings.home)
    requests: list[tuple[str, str, Any]] = [
        ("GET", f"/kb/{bad}", None),
        ("PATCH", f"/kb/{bad}", {"name": "x"}),
        ("DELETE", f"/kb/{bad}", None),
        ("GET", f"/kb/{bad}/documents", None),
        ("POST", f"/kb/{bad}/documents", None),
        ("POST", f"/kb/{bad}/search", ask),
        ("POST", f"/kb/{bad}/ask", ask),
        ("GET", f"/kb/{handbook}/documents/{bad}", None),
        ("GET", f"/kb/{handbook}/documents/{bad}/text", None),
        ("GET", f"/kb/{handbook}/documents/{bad}/chunks", None),
        ("GET", f"/kb/{handbook}/documents/{bad}/content", None),
        ("DELETE", f"/kb/{handbook}/documents/{bad}", None),
        ("GET", f"/jobs/{bad}", None),
        ("GET", f"/jobs/{bad}/events", None),
        ("POST", f"/jobs/{bad}/cancel", None),
        ("POST", f"/kb/{handbook}/ask", ask | {"kbs": [name]}),
        ("POST", f"/kb/{handbook}/search", ask | {"kbs": [name]}),
        ("POST", "/v1/chat/completions", {"model": f"kb:{name}", "messages": [
            {"role": "user", "content": "x"}]}),
        ("POST", "/v1/chat/completions", {"model": name, "messages": [
            {"role": "user", "content": "x"}]}),
        ("POST", "/", {"prompt": "x", "kb": name}),
        ("GET", f"/static/{bad}", None),
    ]  # fmt: skip

    for method, path, body in requests:
        reply = real.request(method, path, json=body)

        assert 400 <= reply.status_code < 500, (method, path, reply.status_code)
        assert set(reply.json()) == {"error"}, (method, path)
        assert "root:" not in reply.text
        # What is echoed is escaped: no control or direction character reaches a terminal.
        message = reply.json()["error"]["message"]
        assert message.isprintable(), (method, path, message)
        assert "set-cookie" not in reply.headers
    assert everything_in(services.settings.home) == before
    assert real.get(f"/kb/{handbook}").json()["documents"] == 2


@pytest.mark.parametrize("name", [name for name in HOSTILE if "\n" not in name])
def test_an_uploaded_file_name_is_display_text(
    real: httpx.Client, services: Services, name: str, wait_for_job: Wait
) -> None:
    kb = real.post("/kb", json={"name": f"upload {secrets.token_hex(4)}"}).json()["id"]

    reply = real.post(f"/kb/{kb}/documents", content=multipart(name, b"Some text."), headers=TYPE)

    assert reply.status_code == 202, reply.text
    job = wait_for_job(real, reply.json()["job"]["id"])
    [document] = real.get(f"/kb/{kb}/documents").json()["documents"]
    assert job["state"] == "done"
    assert document["path"] == job["files"][0]["path"]
    assert document["path"] == display_path(document["path"])
    assert document["path"]
    assert {len(blob) for blob in os.listdir(services.blobs.folder)} == {64}
    saved = real.get(f"/kb/{kb}/documents/{document['id']}/content")
    assert saved.content == b"Some text."
    assert saved.headers["content-disposition"].startswith("attachment; filename*=UTF-8''")
    assert "/" not in saved.headers["content-disposition"]


TYPE = {"Content-Type": "multipart/form-data; boundary=X"}


def multipart(name: str, content: bytes) -> bytes:
    """Return a body with one file, its name as raw bytes: clients quote what tests must send."""
    raw = name.replace("\\", "\\\\").replace('"', '\\"').encode()
    return (
        b'--X\r\nContent-Disposition: form-data; name="files"; filename="' + raw + b'"\r\n'
        b"Content-Type: text/plain\r\n\r\n" + content + b"\r\n--X--\r\n"
    )


@pytest.mark.parametrize("root", ["../..", "..", "/", "\0", "C:\\"])
def test_a_root_that_names_nothing_is_refused(real: httpx.Client, handbook: str, root: str) -> None:
    reply = real.post(
        f"/kb/{handbook}/documents",
        params={"root": root, "prune": True},
        files=[("files", ("a.txt", b"x"))],
    )

    assert reply.status_code == 422
    assert "root" in reply.json()["error"]["message"]
