"""Search and ask over HTTP: JSON and event streams of the same answer."""

import json
from typing import Any

import pytest
from fastapi.testclient import TestClient

QUESTION = "正式员工每年有几天年假?"


@pytest.fixture
def client(shared: Any) -> TestClient:
    opened: TestClient = shared.client
    return opened


@pytest.fixture
def handbook(shared: Any) -> str:
    kb: str = shared.handbook
    return kb


def events_of(text: str) -> list[tuple[str, dict[str, Any]]]:
    """Parse a whole event stream into (event, data) pairs; comments are skipped."""
    events = []
    for block in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if line[:1] != ":")
        if fields:
            events.append((fields["event"], json.loads(fields["data"])))
    return events


def test_search_returns_hits_best_first(client: TestClient, handbook: str) -> None:
    reply = client.post(f"/kb/{handbook}/search", json={"question": QUESTION, "top_k": 2})

    hits = reply.json()["hits"]
    assert reply.status_code == 200
    assert [hit["rank"] for hit in hits] == list(range(1, len(hits) + 1))
    assert "15 天" in hits[0]["text"]
    assert hits[0]["document"] == "handbook.md"
    assert set(hits[0]["channels"]) == {"dense", "lexical", "rerank"}


def test_a_citation_quotes_the_stored_text(client: TestClient, handbook: str) -> None:
    answer = client.post(f"/kb/{handbook}/ask", json={"question": QUESTION}).json()

    assert not answer["refused"]
    assert "15" in answer["answer"]
    citation = answer["citations"][0]
    stored = client.get(f"/kb/{handbook}/documents/{citation['document_id']}/text").json()["text"]
    assert stored[citation["start"] : citation["end"]] == citation["quote"]


def test_a_knowledge_base_answers_by_its_name_too(client: TestClient, handbook: str) -> None:
    by_name = client.post("/kb/手册/ask", json={"question": QUESTION}).json()
    by_id = client.post(f"/kb/{handbook}/ask", json={"question": QUESTION}).json()

    assert by_name["answer"] == by_id["answer"]


@pytest.mark.parametrize("way", ["body", "header"])
def test_the_stream_ends_with_the_same_answer(client: TestClient, handbook: str, way: str) -> None:
    body = {"question": QUESTION} | ({"stream": True} if way == "body" else {})
    headers = {"Accept": "text/event-stream"} if way == "header" else {}
    whole = client.post(f"/kb/{handbook}/ask", json={"question": QUESTION}).json()

    reply = client.post(f"/kb/{handbook}/ask", json=body, headers=headers)

    events = events_of(reply.text)
    assert reply.headers["content-type"].startswith("text/event-stream")
    assert events[0][0] == "retrieved"
    assert {name for name, _ in events[1:-1]} == {"token"}
    assert events[-1][0] == "finished"
    assert events[-1][1]["answer"] == whole["answer"]
    assert events[-1][1]["citations"] == whole["citations"]
    assert [p["text"] for p in events[0][1]["passages"]] == [p["text"] for p in whole["passages"]]


def test_a_question_the_documents_do_not_answer_is_refused(
    client: TestClient, handbook: str
) -> None:
    answer = client.post(
        f"/kb/{handbook}/ask", json={"question": "Who painted the ceiling of the Sistine Chapel?"}
    ).json()

    assert answer["refused"]
    assert answer["citations"] == []
    assert answer["model"] == "extractive"


def test_several_knowledge_bases_are_asked_together(
    client: TestClient, handbook: str, upload: Any
) -> None:
    client.post("/kb", json={"name": "other"})
    upload("other", {"seal.txt": "The spare seal has the part number SX-77."})

    hits = client.post(
        f"/kb/{handbook}/search", json={"question": "part number of the seal", "kbs": ["other"]}
    ).json()["hits"]

    assert {hit["kb"] for hit in hits} == {"手册", "other"}


def test_an_unknown_knowledge_base_is_a_404_that_names_those_there_are(
    client: TestClient, handbook: str
) -> None:
    for path, body in (
        ("/kb/nowhere/ask", {"question": QUESTION}),
        ("/kb/nowhere/ask", {"question": QUESTION, "stream": True}),
        (f"/kb/{handbook}/search", {"question": QUESTION, "kbs": ["nowhere"]}),
    ):
        reply = client.post(path, json=body)

        assert reply.status_code == 404
        assert reply.json()["error"]["type"] == "KnowledgeBaseNotFoundError"
        assert "手册" in reply.json()["error"]["message"]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"question": ""}, "question"),
        ({"question": " \n\t　"}, "question"),
        ({"question": "年" * 100_000}, "question"),
        ({"question": 7}, "question"),
        ({}, "question"),
        ({"question": "a\ud800"}, "question"),
        ({"question": "x", "top_k": 0}, "top_k"),
        ({"question": "x", "top_k": 10**9}, "top_k"),
        ({"question": "x", "top_k": -1}, "top_k"),
        ({"question": "x", "top_k": "5"}, "top_k"),
        ({"question": "x", "top_k": True}, "top_k"),
        ({"question": "x", "channel": "both"}, "channel"),
        ({"question": "x", "topk": 3}, "topk"),
        ({"question": "x", "kbs": "手册"}, "kbs"),
        ({"question": "x", "kbs": ["a"] * 101}, "kbs"),
    ],
)
@pytest.mark.parametrize("route", ["search", "ask"])
def test_a_bad_question_is_a_422_that_names_the_field(
    client: TestClient, handbook: str, route: str, body: dict[str, Any], field: str
) -> None:
    # Plain ASCII JSON: a lone surrogate has no other way over the wire.
    reply = client.post(
        f"/kb/{handbook}/{route}",
        content=json.dumps(body),
        headers={"Content-Type": "application/json"},
    )

    assert reply.status_code == 422
    assert reply.json()["error"]["type"] == "InvalidInputError"
    assert field in reply.json()["error"]["message"]
    assert len(reply.text) < 500


@pytest.mark.parametrize(
    "turn", [{"question": "x"}, {"question": "x", "answer": 1}, {"q": "x", "a": "y"}, "x"]
)
def test_a_bad_history_is_refused(client: TestClient, handbook: str, turn: Any) -> None:
    reply = client.post(f"/kb/{handbook}/ask", json={"question": "x", "history": [turn]})

    assert reply.status_code == 422
    assert "history" in reply.json()["error"]["message"]


def test_a_history_is_accepted(client: TestClient, handbook: str) -> None:
    history = [{"question": "有年假吗?", "answer": "有。"}]

    reply = client.post(f"/kb/{handbook}/ask", json={"question": QUESTION, "history": history})

    assert reply.status_code == 200


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b'"x"', b"\xff\xfe", b"[" * 100_000])
def test_a_body_that_is_no_json_object_is_refused(
    client: TestClient, handbook: str, body: bytes
) -> None:
    reply = client.post(
        f"/kb/{handbook}/ask", content=body, headers={"Content-Type": "application/json"}
    )

    assert reply.status_code in (400, 422)
    assert set(reply.json()["error"]) == {"type", "message"}


@pytest.mark.parametrize(
    "question",
    [
        '"',
        "a AND",
        "NEAR(a b",
        "'; DROP TABLE document; --",
        "*",
        "年\0假",
        "🏖️",
        "a" * 9_999,
        "^:-()",
    ],
)
def test_any_text_can_be_asked(client: TestClient, handbook: str, question: str) -> None:
    reply = client.post(f"/kb/{handbook}/ask", json={"question": question})

    assert reply.status_code == 200, reply.text
