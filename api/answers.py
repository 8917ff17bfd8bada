"""What every way of asking shares: a place among those being answered, timing, and errors."""

import time
from collections.abc import Iterator
from typing import Any

from langchain_core.messages import BaseMessage
from starlette.requests import Request

from api.errors import HTTPError, status_for_name
from api.parts import Parts
from api.streaming import Prefetched, last_step
from kb.answers.chat import ChatAnswerer
from kb.records import (
    Answer,
    AnswerEvent,
    Cited,
    Drafted,
    Failed,
    Finished,
    Question,
    Retrieved,
    Token,
)


def begin_answer(parts: Parts, question: Question) -> Prefetched[AnswerEvent]:
    """Retrieve, and return the answer's events; blocks, so call it in a worker thread.

    Raises:
        BusyError: too many questions are being answered.
        KBError: the question cannot be searched for.
    """
    return Prefetched(_measured(parts, question))


def begin_chat(
    parts: Parts, messages: list[BaseMessage], options: dict[str, Any]
) -> Prefetched[AnswerEvent]:
    """Let the chat model go on with a conversation, without any knowledge base.

    Raises:
        BusyError: too many questions are being answered.
        HTTPError: no chat model is installed.
        AnswererError: the model failed.
    """
    answerer = plain_answerer(parts)
    if answerer is None:
        raise HTTPError(
            404,
            "ModelNotFoundError",
            "no chat model is installed here; ask a knowledge base with a model named kb:NAME",
        )
    return Prefetched(_chat(parts, answerer, messages, options))


def plain_answerer(parts: Parts) -> ChatAnswerer | None:
    """Return the model that runs in this process; a server elsewhere is not ours to offer."""
    answerer = parts.chain.answerer
    if isinstance(answerer, ChatAnswerer) and parts.settings.answerer != "openai":
        return answerer
    return None


async def whole_answer(request: Request, events: Prefetched[AnswerEvent]) -> Answer | None:
    """Run an answer to its end; None when the client has left, and nobody waits for it.

    Raises:
        HTTPError: the answerer failed.
    """
    last = await last_step(request, events)
    if isinstance(last, Failed):
        raise failure(last)
    return last.answer if isinstance(last, Finished) else None


def event_data(event: AnswerEvent) -> tuple[str, dict[str, Any]] | None:
    """Return name and data of the event as clients see it; None for one that they do not."""
    match event:
        case Retrieved(passages):
            return "retrieved", {"passages": [passage.to_dict() for passage in passages]}
        case Token(text):
            return "token", {"text": text}
        case Cited(citation, end):
            return "citation", {"citation": citation.to_dict(), "end": end}
        case Finished(answer):
            return "finished", answer.to_dict()
        case Failed(type_, message):
            return "error", {"type": type_, "message": message}
    return None


def failure(event: Failed) -> HTTPError:
    """Turn a failure that came as an event back into one with a status."""
    return HTTPError(status_for_name(event.type), event.type, event.message)


def _chat(
    parts: Parts, answerer: ChatAnswerer, messages: list[BaseMessage], options: dict[str, Any]
) -> Iterator[AnswerEvent]:
    with parts.slots.taken():
        yield Retrieved(())  # so that a stream begins before the model has read the prompt
        for event in answerer.chat(messages, **options):
            if not isinstance(event, Drafted):
                yield event
                continue
            usage = event.draft.usage
            timings = {
                "prompt_tokens": usage.prompt_tokens,
                "completion_tokens": usage.completion_tokens,
            }
            yield Finished(
                Answer(
                    text=event.draft.text,
                    refused=False,
                    support=0.0,
                    answer_span=None,
                    citations=(),
                    passages=(),
                    model=answerer.model,
                    timings=timings,
                    is_cut_off=event.draft.is_cut_off,
                )
            )


def _measured(parts: Parts, question: Question) -> Iterator[AnswerEvent]:
    with parts.slots.taken():
        started = time.perf_counter()
        try:
            yield from parts.chain.events(question)
        finally:
            parts.metrics.time_ask(time.perf_counter() - started)
