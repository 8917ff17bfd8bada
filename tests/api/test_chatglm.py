"""``POST /`` answers in the shape of ChatGLM's own `api.py`."""

from datetime import datetime
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


def test_the_reply_has_the_shape_of_chatglms_api(client: TestClient, handbook: str) -> None:
    body = {"prompt": QUESTION, "history": [], "kb": "手册", "max_length": 2048, "top_p": 0.7}

    reply = client.post("/", json=body).json()

    assert set(reply) == {"response", "history", "status", "time"}
    assert reply["status"] == 200
    assert "15 天" in reply["response"]
    assert reply["history"] == [[QUESTION, reply["response"]]]
    datetime.strptime(reply["time"], "%Y-%m-%d %H:%M:%S")


def test_pairs_of_an_earlier_reply_are_taken_back(client: TestClient, handbook: str) -> None:
    first = client.post("/", json={"prompt": "有年假吗?", "kb": handbook}).json()

    second = client.post(
        "/", json={"prompt": QUESTION, "history": first["history"], "kb": handbook}
    ).json()

    assert second["history"][0] == first["history"][0]
    assert second["history"][1] == [QUESTION, second["response"]]


def test_messages_of_chatglm3_are_answered_in_kind(client: TestClient, handbook: str) -> None:
    history = [
        {"role": "user", "content": "有年假吗?"},
        {"role": "assistant", "metadata": "", "content": "有。"},
    ]

    reply = client.post("/", json={"prompt": QUESTION, "history": history, "kb": handbook}).json()

    assert [item["role"] for item in reply["history"]] == ["user", "assistant"] * 2
    assert reply["history"][0]["content"] == "有年假吗?"
    assert reply["history"][-1]["content"] == reply["response"]


def test_without_a_name_the_default_knowledge_base_answers(client: TestClient, upload: Any) -> None:
    missing = client.post("/", json={"prompt": QUESTION})
    client.post("/kb", json={"name": "default"})
    upload("default", {"a.md": "正式员工每年享有 15 天带薪年假。"})

    found = client.post("/", json={"prompt": QUESTION})

    assert missing.status_code == 404
    assert "'default'" in missing.json()["error"]["message"]
    assert "15 天" in found.json()["response"]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "prompt"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": "x" * 100_000}, "prompt"),
        ({"prompt": "x", "history": "y"}, "history"),
        ({"prompt": "x", "history": [["only one"]]}, "history"),
        ({"prompt": "x", "history": [["a", "b", "c"]]}, "history"),
        ({"prompt": "x", "history": [["a", 1]]}, "history"),
    ],
)
def test_a_bad_body_names_its_field(client: TestClient, body: dict[str, Any], field: str) -> None:
    reply = client.post("/", json=body)

    assert reply.status_code == 422
    assert field in reply.json()["error"]["message"]
