"""Traces, `why`, filters and notices over HTTP."""

from typing import Any

import pytest
from fastapi.testclient import TestClient

from kb.errors import EmbedderError
from kb.wiring import Services
from tests.building import add_document, make_base

PUMP = "How often is the cooling pump serviced?"


@pytest.fixture
def base(services: Services) -> None:
    made = make_base(services.database, "plant")
    add_document(services.database, made, "pump.txt", ["The cooling pump is serviced every 400 h."])
    add_document(services.database, made, "notes/pump.md", ["The cooling pump is painted blue."])


def ask(client: TestClient, **body: Any) -> dict[str, Any]:
    reply: dict[str, Any] = client.post("/kb/plant/ask", json={"question": PUMP, **body}).json()
    return reply


@pytest.mark.usefixtures("base")
def test_a_trace_is_read_by_its_id(client: TestClient) -> None:
    reply = ask(client)

    trace = client.get(f"/traces/{reply['trace_id']}").json()

    assert trace["answer"] == reply["answer"]
    assert trace["candidates"][0]["document"] == "pump.txt"
    assert trace["rewritten"] is None
    assert client.get("/traces/nonsense").status_code == 404


@pytest.mark.usefixtures("base")
def test_a_follow_up_is_looked_up_by_what_it_means(client: TestClient) -> None:
    first = ask(client)
    turn = {"question": PUMP, "answer": first["answer"], "trace_id": first["trace_id"]}

    reply = ask(client, question="Who services it?", history=[turn])

    assert "cooling pump" in reply["rewritten"]


@pytest.mark.usefixtures("base")
def test_a_filter_limits_the_documents(client: TestClient) -> None:
    reply = ask(client, filter={"types": ["md"]})
    wrong = client.post("/kb/plant/ask", json={"question": PUMP, "filter": {"folder": "attic"}})
    misspelt = client.post("/kb/plant/ask", json={"question": PUMP, "filter": {"type": "md"}})

    assert {passage["document"] for passage in reply["passages"]} == {"notes/pump.md"}
    assert wrong.status_code == 422
    assert "attic" in wrong.json()["error"]["message"]
    assert misspelt.status_code == 422


@pytest.mark.usefixtures("base")
def test_why_says_where_a_document_fell_out(client: TestClient) -> None:
    def why(document: str) -> dict[str, Any]:
        body = {"question": PUMP, "document": document, "top_k": 1}
        reply: dict[str, Any] = client.post("/kb/plant/why", json=body).json()
        return reply

    assert why("pump.txt")["verdict"] == "shown"
    assert why("notes/pump.md")["verdict"] == "below_top_k"
    assert why("missing.txt")["verdict"] == "not_found"


@pytest.mark.usefixtures("base")
def test_an_embedder_that_is_gone_is_said(
    client: TestClient, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(text: str) -> list[float]:
        raise EmbedderError("its folder is gone")

    monkeypatch.setattr(services.embedder, "embed_query", fail)

    found = client.post("/kb/plant/search", json={"question": PUMP}).json()

    assert found["hits"][0]["document"] == "pump.txt"
    assert found["notices"][0]["kind"] == "no_dense"
    assert ask(client)["notices"][0]["kb"] == "plant"
