"""OpenAI-compatible chat: model ``kb:NAME`` answers from the knowledge base NAME.

Where a chat model is installed, model ``chatglm`` is that model alone, without documents.
The reply is the cited answer, followed by its sources as text, so that any client shows them;
`citations`, `refused` and `support` stand beside the usual fields for clients that look. While
streaming, markers cannot be set into text that has been sent, so the sources alone name them.

Reference: the Chat Completions API as the `openai` Python client 2.x and later reads it.
"""

import secrets
import time
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage

from api.answers import begin_answer, begin_chat, failure, plain_answerer, whole_answer
from api.errors import HTTPError, describe
from api.parts import Parts, ServerParts, base_named
from api.schemas import ChatBody, ChatMessage
from api.streaming import EventStream, Prefetched, sse_data, steps_in_threads, to_json
from kb.errors import InvalidInputError
from kb.records import Answer, AnswerEvent, Citation, Failed, Finished, Question, Token, Turn
from kb.storage.bases import list_bases

router = APIRouter(prefix="/v1", tags=["OpenAI-compatible"])

PREFIX = "kb:"
PLAIN_MODEL = "chatglm"
MAX_QUOTE_CHARS = 200


@router.get("/models")
def models(parts: ServerParts) -> dict[str, Any]:
    """List one model for each knowledge base, and the chat model if there is one."""
    with parts.database.read() as session:
        ids = [PREFIX + base.name for base in list_bases(session)]
    if plain_answerer(parts) is not None:
        ids.append(PLAIN_MODEL)
    return {
        "object": "list",
        "data": [{"id": id_, "object": "model", "created": 0, "owned_by": "kb"} for id_ in ids],
    }


@router.post("/chat/completions", response_model=None)
async def complete(body: ChatBody, request: Request, parts: ServerParts) -> Response:
    """Answer the last user message from the knowledge base that `model` names.

    Earlier messages are the history; system messages and sampling options have no say in what
    the documents hold and are ignored.
    """
    events = await run_in_threadpool(_begin, parts, body)
    reply_id = f"chatcmpl-{secrets.token_hex(16)}"
    if body.stream:
        with_usage = body.stream_options is not None and body.stream_options.include_usage
        chunks = _Chunks(reply_id, body.model, with_usage=with_usage)
        return EventStream(
            steps_in_threads(chunks.of(events)), close=events.close, on_error=_error_chunk
        )
    answer = await whole_answer(request, events)
    if answer is None:
        return Response(status_code=204)
    return JSONResponse(_completion(reply_id, body.model, answer))


def _begin(parts: Parts, body: ChatBody) -> Prefetched[AnswerEvent]:
    if body.model == PLAIN_MODEL:
        return begin_chat(parts, _messages(body), _options(body))
    return begin_answer(parts, _question(parts, body))


def _messages(body: ChatBody) -> list[BaseMessage]:
    made = {"user": HumanMessage, "assistant": AIMessage, "system": SystemMessage,
            "developer": SystemMessage}  # fmt: skip
    for message in body.messages:
        if message.role not in made:
            raise InvalidInputError("messages", f"no use for a message of the role {message.role}")
    if body.messages[-1].role != "user":
        raise InvalidInputError("messages", "the last message must be the user's")
    return [made[message.role](message.text()) for message in body.messages]


def _options(body: ChatBody) -> dict[str, Any]:
    """Return the settings that the request names, as LangChain calls them."""
    stop = [body.stop] if isinstance(body.stop, str) else body.stop
    options = {
        "temperature": body.temperature,
        "top_p": body.top_p,
        "max_tokens": body.max_tokens,
        "seed": body.seed,
        "stop": [word for word in stop or [] if word] or None,
    }
    return {name: value for name, value in options.items() if value is not None}


def _question(parts: Parts, body: ChatBody) -> Question:
    if not body.model.startswith(PREFIX):
        raise HTTPError(404, "ModelNotFoundError", _no_model(body.model))
    base = base_named(parts, body.model.removeprefix(PREFIX))
    spoken = [message for message in body.messages if message.role in ("user", "assistant")]
    if not spoken or spoken[-1].role != "user":
        raise InvalidInputError("messages", "the last message must be the user's question")
    return Question(
        text=spoken[-1].text(),
        kbs=(base.id,),
        top_k=parts.settings.top_k,
        history=turns_of(spoken[:-1]),
    )


def turns_of(messages: list[ChatMessage]) -> tuple[Turn, ...]:
    """Pair each user message with the assistant message right after it; others are left out."""
    pairs = pairwise(messages)
    return tuple(
        Turn(question=asked.text(), answer=answered.text())
        for asked, answered in pairs
        if asked.role == "user" and answered.role == "assistant"
    )


def _no_model(model: str) -> str:
    return f"no model {model!r}; `GET /v1/models` lists those there are, named kb:NAME"


def _completion(reply_id: str, model: str, answer: Answer) -> dict[str, Any]:
    return {
        "id": reply_id,
        "object": "chat.completion",
        "created": int(time.time()),
        "model": model,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": answer.text + _sources(answer)},
                "logprobs": None,
                "finish_reason": _finish_reason(answer),
            }
        ],
        "usage": _usage(answer),
        **_proof(answer),
    }


class _Chunks:
    """Turns the answer's events into OpenAI's stream of chunks."""

    def __init__(self, reply_id: str, model: str, *, with_usage: bool) -> None:
        self._head = {
            "id": reply_id,
            "object": "chat.completion.chunk",
            "created": int(time.time()),
            "model": model,
        }
        self._with_usage = with_usage

    def of(self, events: Prefetched[AnswerEvent]) -> Iterator[bytes]:
        yield self._chunk({"role": "assistant", "content": ""})
        for event in events:
            if isinstance(event, Token):
                yield self._chunk({"content": event.text})
            elif isinstance(event, Failed):
                raise failure(event)
            elif isinstance(event, Finished):
                yield from self._end(event.answer)

    def _end(self, answer: Answer) -> Iterator[bytes]:
        if sources := _sources(answer):
            yield self._chunk({"content": sources})
        yield self._chunk({}, finish_reason=_finish_reason(answer), **_proof(answer))
        if self._with_usage:
            yield sse_data(to_json({**self._head, "choices": [], "usage": _usage(answer)}))
        yield sse_data("[DONE]")

    def _chunk(
        self, delta: dict[str, str], *, finish_reason: str | None = None, **more: Any
    ) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return sse_data(to_json({**self._head, "choices": [choice], **more}))


def _error_chunk(exc: Exception) -> bytes:
    return sse_data(to_json({"error": describe(exc)}))


def _finish_reason(answer: Answer) -> str:
    return "length" if answer.is_cut_off else "stop"


def _proof(answer: Answer) -> dict[str, Any]:
    return {
        "citations": [citation.to_dict() for citation in answer.citations],
        "refused": answer.refused,
        "support": round(answer.support, 4),
    }


def _usage(answer: Answer) -> dict[str, int]:
    prompt = int(answer.timings.get("prompt_tokens") or 0)
    completion = int(answer.timings.get("completion_tokens") or 0)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
    }


def _sources(answer: Answer) -> str:
    """Return the cited spans as lines to append; "" without citations."""
    lines = list(dict.fromkeys(_source(citation) for citation in answer.citations))
    return "\n\n" + "\n".join(lines) if lines else ""


def _source(citation: Citation) -> str:
    page = f", p. {citation.page}" if citation.page is not None else ""
    quote = " ".join(citation.quote.split())
    if len(quote) > MAX_QUOTE_CHARS:
        quote = quote[: MAX_QUOTE_CHARS - 1] + "…"
    return f"{citation.marker} {citation.document}{page}: “{quote}”"
