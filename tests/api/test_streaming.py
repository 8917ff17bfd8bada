"""Streams over a real socket: order, keep-alive, failures midway, and stopping with the client."""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from pydantic import PrivateAttr

from api.app import create_app
from api.streaming import EventStream, Prefetched, sse, steps_in_threads
from kb.wiring import Services


class Talker:
    """What a test sees of, and does to, the scripted model below."""

    def __init__(self) -> None:
        self.spoken = 0
        self.ended = threading.Event()
        self.go_on = threading.Event()
        self.go_on.set()


class ScriptedModel(BaseChatModel):
    """A chat model that says given words; without words it talks until it is closed."""

    words: tuple[str, ...] = ()
    pause_s: float = 0.0
    fail: bool = False
    _talker: Talker = PrivateAttr(default_factory=Talker)

    @property
    def talker(self) -> Talker:
        return self._talker

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return ChatResult(
            generations=[ChatGeneration(message=AIMessage(content="".join(self.words)))]
        )

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        try:
            for word in self.words or iter(lambda: "还在说。", None):
                assert self.talker.go_on.wait(30)
                time.sleep(self.pause_s)
                self.talker.spoken += 1
                yield ChatGenerationChunk(message=AIMessageChunk(content=word))
            if self.fail:
                raise ConnectionError("the model server went away")
        finally:
            self.talker.ended.set()


Serve = Callable[[FastAPI], Any]
Wait = Callable[..., dict[str, Any]]
QUESTION = {"question": "正式员工每年有几天年假?", "stream": True}
TEXT = "# 年假\n\n正式员工每年享有 15 天带薪年假。\n"


@pytest.fixture
def talk(
    open_services: Callable[..., Services], serve: Serve, wait_for_job: Wait
) -> Callable[[ScriptedModel], Any]:
    """Serve a knowledge base whose answers a scripted model writes."""

    def start(model: ScriptedModel) -> Any:
        live = serve(create_app(open_services(chat_model=model)))
        live.client.post("/kb", json={"name": "base"})
        job = live.client.post("/kb/base/documents", files=[("files", ("a.md", TEXT.encode()))])
        wait_for_job(live.client, job.json()["job"]["id"])
        return live

    return start


def read_events(lines: Iterator[str]) -> Iterator[tuple[str, Any]]:
    event = "message"
    for line in lines:
        if line.startswith("event: "):
            event = line.removeprefix("event: ")
        elif line.startswith("data: "):
            yield event, json.loads(line.removeprefix("data: "))


def test_passages_arrive_before_the_model_has_said_a_word(talk: Callable[..., Any]) -> None:
    model = ScriptedModel(words=("正式员工每年享有 ", "15 天带薪年假。"))
    live = talk(model)

    model.talker.go_on.clear()
    with live.client.stream("POST", "/kb/base/ask", json=QUESTION) as reply:
        incoming = read_events(reply.iter_lines())
        events = [next(incoming)]
        spoken_before = model.talker.spoken
        model.talker.go_on.set()
        events += incoming

    assert spoken_before == 0
    assert [name for name, _ in events] == ["retrieved", "token", "token", "finished"]
    assert events[1][1] == {"text": "正式员工每年享有 "}
    assert events[-1][1]["citations"][0]["quote"] in TEXT


def test_leaving_closes_the_answer_and_frees_its_place(talk: Callable[..., Any]) -> None:
    model = ScriptedModel(pause_s=0.01)  # talks without end
    live = talk(model)

    with live.client.stream("POST", "/kb/base/ask", json=QUESTION) as reply:
        lines = reply.iter_lines()
        events = read_events(lines)
        assert next(events)[0] == "retrieved"
        assert next(events)[0] == "token"
    has_ended = model.talker.ended.wait(10)
    spoken = model.talker.spoken
    time.sleep(0.3)

    assert has_ended
    assert model.talker.spoken == spoken
    metrics = live.client.get("/metrics").text
    assert "kb_ask_duration_seconds_count 1" in metrics


def test_leaving_closes_the_answer_without_streaming_too(talk: Callable[..., Any]) -> None:
    model = ScriptedModel(pause_s=0.01)
    live = talk(model)

    with pytest.raises(httpx.ReadTimeout):
        live.client.post("/kb/base/ask", json=QUESTION | {"stream": False}, timeout=0.5)

    assert model.talker.ended.wait(10)


def test_a_connection_that_breaks_counts_as_leaving(talk: Callable[..., Any]) -> None:
    model = ScriptedModel(pause_s=0.01)
    live = talk(model)
    host, port = live.url.removeprefix("http://").split(":")
    body = json.dumps(QUESTION).encode()
    head = (
        f"POST /kb/base/ask HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )

    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(head.encode() + body)
        received = b""
        while b"event: token" not in received:
            received += connection.recv(65536)

    assert model.talker.ended.wait(10)


def test_a_failure_midway_is_the_last_event(talk: Callable[..., Any]) -> None:
    model = ScriptedModel(words=("正式员工",), fail=True)
    live = talk(model)

    with live.client.stream("POST", "/kb/base/ask", json=QUESTION) as reply:
        events = list(read_events(reply.iter_lines()))
    whole = live.client.post("/kb/base/ask", json=QUESTION | {"stream": False})

    assert reply.status_code == 200
    assert [name for name, _ in events] == ["retrieved", "token", "error"]
    assert set(events[-1][1]) == {"type", "message"}
    assert whole.status_code == (502 if events[-1][1]["type"] == "AnswererError" else 500)
    assert whole.json()["error"]["type"] == events[-1][1]["type"]


def slow_app(pieces: Callable[[], Any], close: Callable[[], None], every_s: float) -> FastAPI:
    app = FastAPI()

    @app.get("/")
    def stream() -> EventStream:
        return EventStream(pieces(), close=close, keep_alive_s=every_s)

    return app


def test_silence_is_filled_with_comments(serve: Serve) -> None:
    def steps() -> Iterator[bytes]:
        yield sse("token", {"text": "a"})
        time.sleep(0.5)
        yield sse("token", {"text": "b"})

    live = serve(slow_app(lambda: steps_in_threads(steps()), lambda: None, 0.1))

    text = live.client.get("/").text

    blocks = text.removesuffix("\n\n").split("\n\n")
    first, second = (f'event: token\ndata: {{"text": "{letter}"}}' for letter in "ab")
    silence = blocks[blocks.index(first) + 1 : blocks.index(second)]
    assert len(silence) >= 2
    assert set(silence) == {": keep-alive"}


def test_a_bug_midway_becomes_an_error_event_without_its_text(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    closed = threading.Event()

    def steps() -> Iterator[bytes]:
        yield sse("token", {"text": "a"})
        raise ZeroDivisionError("secret text")

    live = serve(slow_app(lambda: steps_in_threads(steps()), closed.set, 10))

    text = live.client.get("/").text

    assert text.count("event: error") == 1
    assert "InternalError" in text
    assert "secret" not in text
    assert closed.wait(5)


def test_closing_waits_for_the_step_under_way(serve: Serve) -> None:
    trail: list[str] = []
    closed = threading.Event()

    def steps() -> Iterator[bytes]:
        try:
            yield b": begun\n\n"
            trail.append("working")
            time.sleep(0.5)
            trail.append("worked")
            yield b": never read\n\n"
        finally:
            trail.append("tidied")

    events = steps()

    def close() -> None:
        events.close()
        closed.set()

    live = serve(slow_app(lambda: steps_in_threads(events), close, 10))
    with live.client.stream("GET", "/") as reply:
        assert next(reply.iter_lines()) == ": begun"
        while "working" not in trail:
            time.sleep(0.01)

    assert closed.wait(5)
    assert trail == ["working", "worked", "tidied"]


def test_an_event_is_one_line_whatever_its_text() -> None:
    text = "a\nb\r\nc\u2028d\n\nevent: fake"

    lines = sse("token", {"text": text}).decode().split("\n")

    assert [line.partition(":")[0] for line in lines] == ["event", "data", "", ""]
    assert json.loads(lines[1].removeprefix("data: ")) == {"text": text}


def test_prefetching_fails_at_once_and_loses_no_step() -> None:
    def broken() -> Iterator[int]:
        raise KeyError("cheap")
        yield 1

    with pytest.raises(KeyError):
        Prefetched(broken())
    assert list(Prefetched(iter([1, 2, 3]))) == [1, 2, 3]


def test_closing_a_prefetched_iterator_runs_its_clean_up_even_if_nothing_was_read() -> None:
    trail: list[str] = []

    def steps() -> Iterator[int]:
        try:
            yield 1
            yield 2
        finally:
            trail.append("tidied")

    Prefetched(steps()).close()

    assert trail == ["tidied"]
