"""The one pipeline that the command line, the API and the page run: question in, answer out.

    Question -> retrieve -> support -> (refuse | answerer -> citations) -> Answer

A LangChain Runnable, so that it composes with any LangChain program; `events` yields the same
run step by step. Each step is a plain function over records in its own file.
"""

import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from langchain_core.runnables import Runnable, RunnableConfig

from kb.citations import cite
from kb.errors import KBError, StorageError
from kb.fusion import script_of
from kb.protocols import Answerer
from kb.records import (
    Answer,
    AnswerEvent,
    Draft,
    Drafted,
    EmbedderSpec,
    Failed,
    Finished,
    Hit,
    Passage,
    Question,
    Retrieved,
    Token,
    Usage,
)
from kb.retrieve import Retrieval, Retriever
from kb.storage.bases import new_id, now
from kb.storage.database import Database
from kb.storage.traces import store_trace
from kb.support import support

logger = logging.getLogger(__name__)

REFUSAL_ZH = "知识库里没有找到能回答这个问题的内容。下面列出最接近的段落。"
REFUSAL_EN = (
    "The documents do not seem to answer this question. The nearest passages are listed below."
)


class AskChain(Runnable[Question, Answer]):
    """Answers questions from knowledge bases; holds no state of its own between questions."""

    def __init__(self, database: Database, retriever: Retriever, answerer: Answerer) -> None:
        self._database = database
        self._retriever = retriever
        self.answerer = answerer

    def search(self, question: Question) -> list[Hit]:
        """Return the best hits, without an answer. See `Retriever.search` for errors."""
        return list(self._retriever.search(question).hits)

    def invoke(
        self, input: Question, config: RunnableConfig | None = None, **kwargs: Any
    ) -> Answer:
        """Return the whole answer.

        Raises:
            KBError: the question cannot be searched for, or the chat model failed.
        """
        return self._call_with_config(self._answer, input, config)

    def events(self, question: Question) -> Iterator[AnswerEvent]:
        """Yield one Retrieved, the answer's Tokens, then one Finished.

        What can fail cheaply fails before the first event; later failures arrive as Failed.

        Raises:
            KBError: before the first event only.
        """
        started = time.perf_counter()
        retrieval = self._retriever.search(question)
        retrieve_ms = _ms_since(started)
        return self._events(question, retrieval, started, retrieve_ms)

    def _events(
        self, question: Question, retrieval: Retrieval, started: float, retrieve_ms: float
    ) -> Iterator[AnswerEvent]:
        yield Retrieved(retrieval.passages)
        try:
            yield from self._tokens_and_end(question, retrieval, started, retrieve_ms)
        except KBError as exc:
            logger.warning("an answer failed: %s", type(exc).__name__)
            yield Failed(type(exc).__name__, str(exc))

    def _tokens_and_end(
        self, question: Question, retrieval: Retrieval, started: float, retrieve_ms: float
    ) -> Iterator[AnswerEvent]:
        chance = support(
            question.text,
            retrieval.hits,
            stats=retrieval.stats,
            spec=_shared_spec(retrieval),
        )
        threshold = max((base.support_threshold for base in retrieval.bases), default=0.0)
        if not retrieval.hits or chance < threshold:
            text = refusal_text(question.text)
            yield Token(text)
            answer = _refusal(text, chance, retrieval.passages, self.answerer.model)
            draft_usage, ttft_ms = Usage(), _ms_since(started)
        else:
            draft, ttft_ms = None, None
            for event in self.answerer.answer(question, retrieval.passages):
                if isinstance(event, Drafted):
                    draft = event.draft
                    break
                ttft_ms = ttft_ms or _ms_since(started)
                yield event
            if draft is None:
                raise KBError("the answerer ended without an answer")
            answer = _answer(draft, chance, retrieval.passages, self.answerer.model)
            draft_usage = draft.usage
        total_ms = _ms_since(started)
        timings = _timings(retrieve_ms, ttft_ms, total_ms, draft_usage)
        yield Finished(self._traced(question, replace(answer, timings=timings)))

    def _traced(self, question: Question, answer: Answer) -> Answer:
        """Store the answer and give it its trace id; "" where the disk does not take it."""
        trace_id = new_id()
        try:
            with self._database.write() as session:
                store_trace(
                    session,
                    trace_id=trace_id,
                    question=question.text,
                    answer=answer,
                    created_at=now(),
                )
        except StorageError as exc:
            logger.warning("an answer could not be stored: %s", exc)
            return answer
        return replace(answer, trace_id=trace_id)

    def _answer(self, question: Question) -> Answer:
        """Run to the end; a failure on the way is raised instead of yielded."""
        started = time.perf_counter()
        retrieval = self._retriever.search(question)
        for event in self._tokens_and_end(question, retrieval, started, _ms_since(started)):
            if isinstance(event, Finished):
                return event.answer
        raise KBError("the answerer ended without an answer")


def refusal_text(question: str) -> str:
    """Return the refusal in the question's language."""
    return REFUSAL_ZH if any(script_of(c) == "Hani" for c in question) else REFUSAL_EN


def _refusal(text: str, chance: float, passages: Sequence[Passage], model: str) -> Answer:
    return Answer(
        text=text,
        refused=True,
        support=chance,
        answer_span=None,
        citations=(),
        passages=tuple(passages),
        model=model,
    )


def _answer(draft: Draft, chance: float, passages: Sequence[Passage], model: str) -> Answer:
    text, citations, span = cite(draft, passages)
    return Answer(
        text=text,
        refused=False,
        support=chance,
        answer_span=span,
        citations=citations,
        passages=tuple(passages),
        model=model,
        is_cut_off=draft.is_cut_off,
    )


def _shared_spec(retrieval: Retrieval) -> EmbedderSpec | None:
    """Return the embedder's record if all bases share it; cosines of two do not compare."""
    specs = {base.embedder.identity: base.embedder for base in retrieval.bases}
    return next(iter(specs.values())) if len(specs) == 1 else None


def _timings(
    retrieve_ms: float, ttft_ms: float | None, total_ms: float, usage: Usage
) -> dict[str, float | int | None]:
    decode_s = (total_ms - (ttft_ms or total_ms)) / 1000
    return {
        "retrieve_ms": retrieve_ms,
        "ttft_ms": ttft_ms,
        "total_ms": total_ms,
        "prompt_tokens": usage.prompt_tokens,
        "cached_tokens": usage.cached_tokens,
        "completion_tokens": usage.completion_tokens,
        "tokens_per_s": (
            round(usage.completion_tokens / decode_s, 2)
            if usage.completion_tokens and decode_s > 0
            else None
        ),
    }


def _ms_since(started: float) -> float:
    return round((time.perf_counter() - started) * 1000, 2)
