"""Thumbs over HTTP."""

from typing import Any

from fastapi.testclient import TestClient
from sqlalchemy import select

from kb.storage.tables import FeedbackRow
from kb.wiring import Services


def ask(client: TestClient, kb: str) -> str:
    reply = client.post(f"/kb/{kb}/ask", json={"question": "正式员工每年有几天年假?"})
    trace: str = reply.json()["trace_id"]
    return trace


def stored(services: Services) -> list[tuple[str, str]]:
    with services.database.read() as session:
        rows = session.execute(select(FeedbackRow.rating, FeedbackRow.comment))
        return [tuple(row) for row in rows]


def test_an_answer_is_rated_rated_again_and_not(
    client: TestClient, services: Services, handbook: str
) -> None:
    path = f"/traces/{ask(client, handbook)}/feedback"

    first = client.put(path, json={"rating": "up"})
    second = client.put(path, json={"rating": "down", "comment": "少了一半 🙃"})

    assert (first.status_code, second.status_code) == (204, 204)
    assert stored(services) == [("down", "少了一半 🙃")]
    assert client.delete(path).status_code == 204
    assert client.delete(path).status_code == 204
    assert stored(services) == []


def test_bad_ratings_are_refused(client: TestClient, handbook: str) -> None:
    path = f"/traces/{ask(client, handbook)}/feedback"
    bodies: list[Any] = [{}, {"rating": "sideways"}, {"rating": "up", "stars": 5}, [],
                         {"rating": "up", "comment": "x" * 10_001}]  # fmt: skip

    assert [client.put(path, json=body).status_code for body in bodies] == [422] * 5
    unknown = client.put(f"/traces/{'0' * 32}/feedback", json={"rating": "up"})
    assert (unknown.status_code, unknown.json()["error"]["type"]) == (404, "TraceNotFoundError")
    foreign = client.put(path, json={"rating": "up"}, headers={"Origin": "http://evil.example"})
    assert foreign.status_code == 403
