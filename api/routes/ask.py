"""Search and ask: the same pipeline as the command line, as JSON or as an event stream."""

from collections.abc import Iterator
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse

from api.answers import begin_answer, event_data, whole_answer
from api.parts import Parts, PathBase, ServerParts
from api.schemas import AskBody, SearchBody, WhyBody
from api.streaming import EventStream, Prefetched, sse, steps_in_threads
from kb.records import AnswerEvent, KnowledgeBase, Question
from kb.traces.why import why

router = APIRouter(prefix="/kb/{kb}", tags=["questions"])


@router.post("/search")
def search(body: SearchBody, base: PathBase, parts: ServerParts) -> dict[str, Any]:
    """Return the passages that best match the question. No chat model is used.

    `kbs` names further knowledge bases to search together with this one.
    """
    found = parts.chain.retrieve(_question(parts, base, body))
    return {
        "hits": [hit.to_dict() for hit in found.hits],
        "notices": [notice.to_dict() for notice in found.notices],
    }


@router.post("/why")
def why_not(body: WhyBody, base: PathBase, parts: ServerParts) -> dict[str, Any]:
    """Say where a document fell out on its way to being shown for the question."""
    found = why(
        parts.database,
        parts.chain.retriever,
        parts.chain.answerer,
        _question(parts, base, body),
        body.document,
    )
    return found.to_dict()


@router.post("/ask", response_model=None)
async def ask(body: AskBody, base: PathBase, request: Request, parts: ServerParts) -> Response:
    """Answer the question from the documents, with citations, or refuse.

    With `stream` or ``Accept: text/event-stream`` the reply is a stream of `retrieved`, `token`,
    `citation` (early, of a sentence that a chat model has completed), `finished` and `error`;
    leaving ends the work. A refusal makes no model call.
    """
    question = _question(parts, base, body)
    events = await run_in_threadpool(begin_answer, parts, question)
    if body.stream or _wants_events(request):
        return EventStream(steps_in_threads(_as_sse(events)), close=events.close)
    answer = await whole_answer(request, events)
    return Response(status_code=204) if answer is None else JSONResponse(answer.to_dict())


def _question(parts: Parts, base: KnowledgeBase, body: SearchBody) -> Question:
    history = body.history if isinstance(body, AskBody) else []
    return Question(
        text=body.question,
        kbs=(base.id, *body.kbs),
        top_k=parts.settings.top_k if body.top_k is None else body.top_k,
        channel=body.channel,
        history=tuple(turn.to_turn() for turn in history),
        filter=body.filter.to_filter(),
    )


def _wants_events(request: Request) -> bool:
    return "text/event-stream" in request.headers.get("accept", "")


def _as_sse(events: Prefetched[AnswerEvent]) -> Iterator[bytes]:
    for event in events:
        if shown := event_data(event):
            yield sse(*shown)
