"""``POST /`` as in ChatGLM's own `api.py`, so that programs written for it can ask the documents.

Reference: THUDM/ChatGLM2-6B and ChatGLM3, `api.py`: body ``{"prompt", "history", ...}``, reply
``{"response", "history", "status", "time"}``. ChatGLM 1 and 2 send the history as pairs, ChatGLM 3
as messages; the reply's history has the form that was sent. `max_length`, `top_p` and
`temperature` mean nothing for quoted sentences and are ignored.
"""

from datetime import datetime
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse

from api.answers import begin_answer, whole_answer
from api.parts import ServerParts, base_named
from api.routes.openai import turns_of
from api.schemas import ChatMessage, GLMBody
from kb.records import Question, Turn

router = APIRouter(tags=["ChatGLM-compatible"])


@router.post("/", response_model=None)
async def answer(body: GLMBody, request: Request, parts: ServerParts) -> Response:
    """Answer `prompt` from the knowledge base `kb`, by default the one named "default"."""
    base = await run_in_threadpool(base_named, parts, body.kb)
    question = Question(
        text=body.prompt, kbs=(base.id,), top_k=parts.settings.top_k, history=_turns(body)
    )
    events = await run_in_threadpool(begin_answer, parts, question)
    found = await whole_answer(request, events)
    if found is None:
        return Response(status_code=204)
    return JSONResponse(
        {
            "response": found.text,
            "history": _history(body, found.text),
            "status": 200,
            "time": datetime.now().strftime("%Y-%m-%d %H:%M:%S"),  # local time, as theirs
        }
    )


def _turns(body: GLMBody) -> tuple[Turn, ...]:
    messages = [item for item in body.history if isinstance(item, ChatMessage)]
    pairs = [item for item in body.history if isinstance(item, list)]
    return turns_of(messages) + tuple(Turn(question=q, answer=a) for q, a in pairs)


def _history(body: GLMBody, response: str) -> list[Any]:
    if any(isinstance(item, ChatMessage) for item in body.history):
        said = [
            {"role": item.role, "content": item.text()}
            for item in body.history
            if isinstance(item, ChatMessage)
        ]
        return [
            *said,
            {"role": "user", "content": body.prompt},
            {"role": "assistant", "metadata": "", "content": response},
        ]
    return [*body.history, [body.prompt, response]]
