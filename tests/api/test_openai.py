"""The OpenAI-compatible routes, asked by OpenAI's own client over a real socket."""

from collections.abc import Callable, Iterator
from typing import Any

import httpx
import openai
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from api.app import create_app
from kb.wiring import Services

KEY = "a-long-random-key"
QUESTION = "正式员工每年有几天年假?"

Serve = Callable[[FastAPI], Any]


@pytest.fixture
def asked(shared: Any) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(api_key="any", base_url=f"{shared.real.base_url}/v1", max_retries=0) as one:
        yield one


@pytest.fixture
def client(shared: Any) -> TestClient:
    opened: TestClient = shared.client
    return opened


@pytest.fixture
def handbook(shared: Any) -> str:
    kb: str = shared.handbook
    return kb


def user(text: Any) -> list[Any]:
    return [{"role": "user", "content": text}]


def test_each_knowledge_base_is_a_model(asked: openai.OpenAI) -> None:
    assert "kb:手册" in [model.id for model in asked.models.list()]


def test_an_answer_carries_its_citations(asked: openai.OpenAI) -> None:
    reply = asked.chat.completions.create(
        model="kb:手册", messages=user(QUESTION), temperature=0.2, max_tokens=100
    )

    content = reply.choices[0].message.content or ""
    extra = reply.model_extra or {}
    assert reply.object == "chat.completion"
    assert reply.model == "kb:手册"
    assert reply.choices[0].finish_reason == "stop"
    assert "15 天" in content
    assert "[1] handbook.md: “" in content
    assert extra["citations"][0]["quote"] in content
    assert extra["refused"] is False
    assert reply.usage is not None
    assert reply.usage.total_tokens == reply.usage.prompt_tokens + reply.usage.completion_tokens


def test_a_stream_says_the_same(asked: openai.OpenAI) -> None:
    whole = asked.chat.completions.create(model="kb:手册", messages=user(QUESTION))
    content, last, usage = "", None, None

    for chunk in asked.chat.completions.create(
        model="kb:手册",
        messages=user(QUESTION),
        stream=True,
        stream_options={"include_usage": True},
    ):
        if chunk.choices:
            content += chunk.choices[0].delta.content or ""
            last = chunk
        usage = chunk.usage or usage

    assert last is not None
    assert last.choices[0].finish_reason == "stop"
    assert (last.model_extra or {})["citations"] == (whole.model_extra or {})["citations"]
    sources = (whole.choices[0].message.content or "").split("\n\n")[-1]
    assert content.endswith(sources)
    assert "15 天" in content
    assert usage is not None


def test_a_refusal_is_a_reply_without_sources(asked: openai.OpenAI) -> None:
    reply = asked.chat.completions.create(
        model="kb:手册", messages=user("Who painted the Sistine Chapel?")
    )

    assert (reply.model_extra or {})["refused"] is True
    assert (reply.model_extra or {})["citations"] == []
    assert "[1]" not in (reply.choices[0].message.content or "")


def test_content_may_come_in_parts_and_after_a_history(asked: openai.OpenAI) -> None:
    reply = asked.chat.completions.create(
        model="kb:手册",
        messages=[
            {"role": "system", "content": "You are a pirate."},
            {"role": "user", "content": "有年假吗?"},
            {"role": "assistant", "content": "有。"},
            {"role": "user", "content": [{"type": "text", "text": QUESTION}]},
        ],
    )

    assert "15 天" in (reply.choices[0].message.content or "")


def test_the_api_key_is_the_servers(open_services: Callable[..., Services], serve: Serve) -> None:
    live = serve(create_app(open_services(api_key=KEY)))

    with openai.OpenAI(api_key=KEY, base_url=f"{live.url}/v1", max_retries=0) as client:
        assert list(client.models.list()) == []
        with pytest.raises(openai.AuthenticationError):
            client.with_options(api_key="wrong").models.list()


@pytest.mark.parametrize("model", ["kb:nowhere", "chatglm", "gpt-4", "", "kb:"])
def test_a_model_that_is_not_there_is_a_clear_error(asked: openai.OpenAI, model: str) -> None:
    with pytest.raises((openai.NotFoundError, openai.UnprocessableEntityError)) as caught:
        asked.chat.completions.create(model=model, messages=user("x"))

    assert isinstance(caught.value.body, dict)
    assert caught.value.body["message"]


def test_a_plain_model_says_what_to_do(client: TestClient) -> None:
    reply = client.post("/v1/chat/completions", json={"model": "chatglm", "messages": user("x")})

    assert reply.status_code == 404
    assert reply.json()["error"]["type"] == "ModelNotFoundError"
    assert "kb:NAME" in reply.json()["error"]["message"]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"messages": []}, "messages"),
        ({"messages": "hello"}, "messages"),
        ({"messages": user("x") * 500}, "messages"),
        ({"messages": [{"role": "assistant", "content": "x"}]}, "messages"),
        ({"messages": [{"role": "system", "content": "x"}]}, "messages"),
        ({"messages": user("")}, "question"),
        ({"messages": user(None)}, "question"),
        ({"messages": user("x" * 99_999)}, "question"),
        ({"messages": user([{"type": "image_url", "image_url": {"url": "x"}}])}, "messages"),
        ({"messages": [{"role": "king", "content": "x"}]}, "messages"),
        ({"n": 2}, "n"),
        ({"tools": [{"type": "function"}]}, "tools"),
        ({"model": None}, "model"),
        ({"stream": "perhaps"}, "stream"),
    ],
)
def test_a_bad_request_names_its_field(
    client: TestClient, handbook: str, change: dict[str, Any], field: str
) -> None:
    body = {"model": f"kb:{handbook}", "messages": user("x")} | change

    reply = client.post("/v1/chat/completions", json=body)

    assert reply.status_code == 422, reply.text
    assert field in reply.json()["error"]["message"]


def test_a_failure_before_the_stream_has_a_status(client: TestClient, handbook: str) -> None:
    body = {"model": f"kb:{handbook}", "messages": user("x" * 99_999), "stream": True}

    assert client.post("/v1/chat/completions", json=body).status_code == 422


def test_the_client_used_here_speaks_over_the_loopback_only(asked: openai.OpenAI) -> None:
    assert httpx.URL(str(asked.base_url)).host == "127.0.0.1"
