"""Every failure has one shape, the right status, and for a bug an id instead of its text."""

import inspect
import logging
from collections.abc import Callable
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from api.app import create_app
from api.errors import STATUS, describe, status_for, status_for_name
from kb import errors
from kb.errors import InvalidInputError, KBError, KnowledgeBaseNotFoundError, StorageError
from kb.wiring import Services

SECRET = "what is the salary of the director"


def all_errors() -> list[type[KBError]]:
    return [
        cls
        for _, cls in inspect.getmembers(errors, inspect.isclass)
        if issubclass(cls, KBError) and cls.__module__ == "kb.errors"
    ]


@pytest.fixture
def client(shared: Any) -> TestClient:
    opened: TestClient = shared.client
    return opened


@pytest.fixture
def failing(app: FastAPI) -> FastAPI:
    """The application with routes that fail in ways that no real route should."""

    @app.get("/fails/{how}")
    def fail(how: str) -> None:
        failures: dict[str, Exception] = {
            "bug": ZeroDivisionError(SECRET),
            "disk": StorageError("the disk is full"),
            "input": InvalidInputError("top_k", "is odd"),
        }
        raise failures[how]

    return app


def test_every_expected_failure_has_a_status() -> None:
    assert len(all_errors()) > 20
    for cls in all_errors():
        status = status_for_name(cls.__name__)

        assert 400 <= status < 600
        assert next(s for base, s in STATUS if issubclass(cls, base)) == status


def test_the_table_puts_subclasses_above_their_bases() -> None:
    classes = [cls for cls, _ in STATUS]

    for index, cls in enumerate(classes):
        assert not any(issubclass(cls, earlier) for earlier in classes[:index])


@pytest.mark.parametrize("name", ["NoSuchError", "KBError", "Sequence", "__name__", ""])
def test_an_unknown_failure_is_the_servers(name: str) -> None:
    assert status_for_name(name) == 500


def test_statuses_of_common_failures() -> None:
    assert status_for(KnowledgeBaseNotFoundError("x", [])) == 404
    assert status_for(InvalidInputError("x", "y")) == 422
    assert status_for(StorageError("full")) == 503


@pytest.mark.parametrize(
    ("method", "path", "status", "type_"),
    [
        ("GET", "/nowhere", 404, "NotFoundError"),
        ("PUT", "/kb", 405, "MethodNotAllowedError"),
        ("DELETE", "/", 405, "MethodNotAllowedError"),
        ("GET", "/kb/nothing", 404, "KnowledgeBaseNotFoundError"),
        ("GET", "/jobs/nothing", 404, "JobNotFoundError"),
        ("GET", "/kb/a/b/c/d", 404, "NotFoundError"),
        ("GET", "/docs", 404, "NotFoundError"),
        ("GET", "/redoc", 404, "NotFoundError"),
        ("GET", "/static/nothing.js", 404, "NotFoundError"),
        ("POST", "/kb", 422, "InvalidInputError"),
        ("TRACE", "/kb", 405, "MethodNotAllowedError"),
    ],
)
def test_one_shape_for_every_error(
    client: TestClient, method: str, path: str, status: int, type_: str
) -> None:
    reply = client.request(method, path)

    assert reply.status_code == status
    assert set(reply.json()) == {"error"}
    assert reply.json()["error"]["type"] == type_
    assert reply.json()["error"]["message"]


def test_a_bug_is_a_500_whose_id_is_in_the_log(
    failing: FastAPI, caplog: pytest.LogCaptureFixture
) -> None:
    with TestClient(failing, base_url="http://127.0.0.1") as client:
        reply = client.get("/fails/bug")

    error = reply.json()["error"]
    bug_id = error["message"].split()[2].rstrip(";")
    assert reply.status_code == 500
    assert error["type"] == "InternalError"
    assert SECRET not in reply.text
    assert "ZeroDivisionError" not in reply.text
    assert reply.headers["x-content-type-options"] == "nosniff"
    [record] = [r for r in caplog.records if bug_id in r.getMessage()]
    assert record.exc_info is not None


def test_trouble_with_the_disk_says_when_to_come_back(failing: FastAPI) -> None:
    with TestClient(failing, base_url="http://127.0.0.1") as client:
        reply = client.get("/fails/disk")

    assert reply.status_code == 503
    assert int(reply.headers["retry-after"]) > 0
    assert reply.json()["error"] == {"type": "StorageError", "message": "the disk is full"}


@pytest.mark.parametrize("type_", ["application/x-www-form-urlencoded", "text/plain", ""])
def test_a_body_that_is_not_declared_as_json_says_what_to_send(
    client: TestClient, type_: str
) -> None:
    """Nor may it be: a page elsewhere can send these types without being asked first."""
    reply = client.post("/kb", content=b'{"name": "x"}', headers={"Content-Type": type_})

    assert reply.status_code == 422
    assert "Content-Type: application/json" in reply.json()["error"]["message"]


def test_a_websocket_is_closed(client: TestClient) -> None:
    with pytest.raises(WebSocketDisconnect), client.websocket_connect("/kb"):
        pass


def test_an_error_event_hides_a_bug_and_shows_the_rest(caplog: pytest.LogCaptureFixture) -> None:
    assert describe(InvalidInputError("top_k", "is odd")) == {
        "type": "InvalidInputError",
        "message": "top_k: is odd",
    }
    assert SECRET not in describe(ValueError(SECRET))["message"]
    assert describe(ValueError(SECRET))["type"] == "InternalError"


def test_no_question_is_logged_above_debug(
    open_services: Callable[..., Services], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    app = create_app(open_services())
    with TestClient(app, base_url="http://127.0.0.1") as client:
        client.post("/kb", json={"name": "base"})
        client.post("/kb/base/ask", json={"question": SECRET})
        client.post("/kb/base/ask", json={"question": SECRET, "stream": True})
        client.post("/kb/base/search", json={"question": SECRET})
        client.post("/kb/base/ask", json={"question": SECRET, "top_k": 0})
        client.post("/", json={"prompt": SECRET, "kb": "base"})

    assert SECRET not in caplog.text
