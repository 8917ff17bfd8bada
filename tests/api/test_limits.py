"""How much may be sent at once, and how many questions are answered at once."""

import json
import os
from collections.abc import Callable, Iterator

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from api.app import create_app
from api.errors import BusyError
from api.limits import MAX_JSON_BYTES, Slots
from api.parts import Parts
from kb.wiring import Services

MB = 2**20


@pytest.fixture
def small(open_services: Callable[..., Services]) -> Iterator[TestClient]:
    """A server that takes uploads of at most 1 MB."""
    with TestClient(
        create_app(open_services(max_upload_mb=1)), base_url="http://127.0.0.1"
    ) as client:
        client.post("/kb", json={"name": "base"})
        yield client


def form(content: bytes) -> bytes:
    return (
        b'--X\r\nContent-Disposition: form-data; name="files"; filename="a.txt"\r\n\r\n'
        + content
        + b"\r\n--X--\r\n"
    )


TYPE = {"Content-Type": "multipart/form-data; boundary=X"}


def test_an_upload_that_announces_too_much_is_refused_before_it_is_read(
    small: TestClient,
) -> None:
    def unreadable() -> Iterator[bytes]:
        raise AssertionError("the body was read")
        yield b""

    reply = small.post(
        "/kb/base/documents", content=unreadable(), headers=TYPE | {"Content-Length": str(MB + 1)}
    )

    assert reply.status_code == 413
    assert reply.json()["error"]["type"] == "TooLargeError"
    assert "1 MB" in reply.json()["error"]["message"]
    assert "max_upload_mb" in reply.json()["error"]["message"]


def test_an_upload_that_grows_too_large_is_cut_off_and_leaves_nothing(
    small: TestClient, open_services: Callable[..., Services]
) -> None:
    def pieces() -> Iterator[bytes]:
        yield form(b"")[:-9]
        for _ in range(40):
            yield b"x" * (64 * 1024)

    reply = small.post("/kb/base/documents", content=pieces(), headers=TYPE)

    assert reply.status_code == 413
    assert reply.json()["error"]["type"] == "TooLargeError"
    blobs = open_services().blobs.folder
    assert not blobs.exists() or os.listdir(blobs) == []


def test_an_upload_below_the_limit_is_taken(small: TestClient) -> None:
    reply = small.post("/kb/base/documents", content=form(b"x" * (MB - 1000)), headers=TYPE)

    assert reply.status_code == 202


@pytest.mark.parametrize("length", ["-1", "many", "1e9", ""])
def test_a_content_length_that_is_no_number_hides_nothing(small: TestClient, length: str) -> None:
    reply = small.post(
        "/kb/base/documents", content=form(b"x" * 2 * MB), headers=TYPE | {"Content-Length": length}
    )

    assert reply.status_code in (400, 413)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/kb"),
        ("PATCH", "/kb/base"),
        ("POST", "/kb/base/ask"),
        ("POST", "/v1/chat/completions"),
        ("POST", "/"),
        ("GET", "/kb/base/documents"),
        ("POST", "/kb/base/documents/0"),
    ],
)
def test_other_bodies_have_a_limit_of_their_own(small: TestClient, method: str, path: str) -> None:
    body = b'{"name": "' + b"x" * MAX_JSON_BYTES + b'"}'

    announced = small.request(method, path, content=body)
    counted = small.request(method, path, content=iter([body]))

    assert announced.status_code == 413
    assert counted.status_code in (413, 404, 405, 200)  # where no body is read, none is counted
    if path == "/kb":
        assert counted.status_code == 413
        assert counted.json()["error"]["type"] == "TooLargeError"


def test_a_question_of_100000_chinese_characters_gets_a_422_not_a_413(small: TestClient) -> None:
    body = json.dumps({"question": "问" * 100_000})  # as 600,000 bytes of escapes

    reply = small.post("/kb/base/ask", content=body, headers={"Content-Type": "application/json"})

    assert reply.status_code == 422


def test_slots_are_given_back_however_the_work_ends() -> None:
    slots = Slots(2)

    for _ in range(5):
        with slots.taken(), slots.taken(), pytest.raises(BusyError), slots.taken():
            pass
        with pytest.raises(ZeroDivisionError), slots.taken():
            raise ZeroDivisionError


@pytest.mark.parametrize("body", [{"question": "x"}, {"question": "x", "stream": True}])
def test_a_full_server_says_when_to_come_back(
    app: FastAPI, client: TestClient, handbook: str, body: dict[str, object]
) -> None:
    parts: Parts = app.state.parts
    held = [parts.slots.taken() for _ in range(parts.slots.limit)]
    for slot in held:
        slot.__enter__()

    busy = client.post(f"/kb/{handbook}/ask", json=body)
    held[0].__exit__(None, None, None)
    free = client.post(f"/kb/{handbook}/ask", json=body)

    assert busy.status_code == 503
    assert busy.json()["error"]["type"] == "BusyError"
    assert int(busy.headers["retry-after"]) > 0
    assert free.status_code == 200
