"""The page and its files are served as they are, with headers that keep them harmless."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from api.routes.page import INDEX, static_files
from webui import STATIC


@pytest.fixture
def client(shared: Any) -> TestClient:
    opened: TestClient = shared.client
    return opened


@pytest.fixture
def files(tmp_path: Path) -> Iterator[TestClient]:
    """The static files' application alone, over a folder with one file of each kind."""
    folder = tmp_path / "static"
    (folder / "js").mkdir(parents=True)
    for name in ("style.css", "js/app.js", "js/part.mjs", "icon.svg", "font.woff2"):
        (folder / name).write_text("content")
    (tmp_path / "secret.txt").write_text("secret")
    (folder / "link").symlink_to(tmp_path / "secret.txt")
    app = FastAPI()
    app.mount("/static", static_files(folder))
    with TestClient(app) as client:
        yield client


@pytest.mark.skipif(not (STATIC / INDEX).is_file(), reason="the page is not built yet")
def test_the_page_is_served_at_the_root(client: TestClient) -> None:
    reply = client.get("/")

    assert reply.status_code == 200
    assert reply.headers["content-type"] == "text/html; charset=utf-8"
    assert reply.content == (STATIC / INDEX).read_bytes()
    assert client.head("/").status_code == 200
    assert client.head("/").content == b""


def test_the_page_may_load_from_its_own_server_only(client: TestClient) -> None:
    policy = client.get("/").headers["content-security-policy"]

    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'self'"
    assert rules["frame-ancestors"] == rules["object-src"] == rules["base-uri"] == "'none'"
    assert "http" not in policy
    assert "*" not in policy


def test_the_page_is_asked_for_again_and_answers_of_the_api_are_never_kept(
    client: TestClient,
) -> None:
    assert client.get("/").headers["cache-control"] == "no-cache"
    assert client.get("/kb").headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    ("name", "type_"),
    [
        ("style.css", "text/css"),
        ("js/app.js", "text/javascript"),
        ("js/part.mjs", "text/javascript"),
        ("icon.svg", "image/svg+xml"),
        ("font.woff2", "font/woff2"),
    ],
)
def test_files_have_the_types_that_browsers_ask_for(
    files: TestClient, name: str, type_: str
) -> None:
    reply = files.get(f"/static/{name}")

    assert reply.status_code == 200
    assert reply.headers["content-type"].split(";")[0] == type_


@pytest.mark.parametrize(
    "path",
    [
        "/static/../secret.txt",
        "/static/%2e%2e/secret.txt",
        "/static/..%2fsecret.txt",
        "/static/..%5csecret.txt",
        "/static//etc/passwd",
        "/static/%2fetc%2fpasswd",
        "/static/js/../../secret.txt",
        "/static/link",
        "/static/",
        "/static/js",
        "/static/%00",
        "/static/" + "a" * 300,
    ],
)
def test_nothing_outside_the_folder_is_served(files: TestClient, path: str) -> None:
    reply = files.get(path)

    assert reply.status_code in (404, 400)
    assert "secret" not in reply.text
