"""The one pipeline that the command line, the API and the page run: question in, answer out.

    Question -> word it -> retrieve -> support -> (refuse | answerer -> citations) -> Answer

A LangChain Runnable, so that it composes with any LangChain program; `events` yields the same
run step by step. Each step is a plain function over records in its own file.
"""

import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Any

from langchain_core.runnables import Runnable, RunnableConfig

from kb.answers.citations import ReadPassages, cite
from kb.errors import KBError, StorageError
from kb.prompt import ordered
from kb.protocols import Answerer, ChatModelAnswerer
from kb.questions.rewrite import self_contained
from kb.records import (
    Answer,
    AnswerEvent,
    AnswerSpan,
    Candidate,
    Citation,
    Draft,
    Drafted,
    EmbedderSpec,
    Failed,
    Finished,
    Hit,
    KnowledgeBase,
    Passage,
    Question,
    Retrieved,
    Token,
    Usage,
)
from kb.refusal.support import dense_background, support
from kb.retrieval.retrieve import Retrieval, Retriever, check_question
from kb.storage.bases import new_id, now
from kb.storage.database import Database
from kb.storage.trace_reads import shown_spans, turns_with_traces
from kb.storage.traces import drop_old_traces, store_trace
from kb.text.terms import has_han
from kb.traces.trace import Details

logger = logging.getLogger(__name__)

# How long answers are kept unless the settings say otherwise.
DEFAULT_TRACE_DAYS = 365

REFUSAL_ZH = "知识库里没有找到能回答这个问题的内容。下面列出最接近的段落。"
REFUSAL_EN = (
    "The documents do not seem to answer this question. The nearest passages are listed below."
)


class AskChain(Runnable[Question, Answer]):
    """Answers questions from knowledge bases; holds no state of its own between questions."""

    def __init__(
        self,
        database: Database,
        retriever: Retriever,
        answerer: Answerer,
        *,
        trace_days: int = DEFAULT_TRACE_DAYS,
        widen_chars: int = 0,
    ) -> None:
        """Put the parts together.

        Args:
            database: where answers are stored.
            retriever: finds the passages.
            answerer: writes from them.
            trace_days: how long answers are kept; 0 keeps none, and drops those there are.
            widen_chars: by how many characters passages may grow for a chat model, as
                `kb.retrieval.expand` says; 0 for none.
        """
        self._database = database
        self.retriever = retriever
        self.answerer = answerer
        self._trace_days = trace_days
        self._widen_chars = widen_chars

    def search(self, question: Question) -> list[Hit]:
        """Return the best hits, without an answer. See `Retriever.search` for errors."""
        return list(self.retriever.search(question).hits)

    def retrieve(self, question: Question) -> Retrieval:
        """Return what was found and how. See `Retriever.search` for errors."""
        return self.retriever.search(question)

    def invoke(
        self, input: Question, config: RunnableConfig | None = None, **kwargs: Any
    ) -> Answer:
        """Return the whole answer.

        Raises:
            KBError: the question cannot be searched for, or the chat model failed.
        """
        return self._call_with_config(self._answer, input, config)

    def events(self, question: Question) -> Iterator[AnswerEvent]:
        """Yield one Retrieved, the answer's Tokens, with a chat model Cited ones among them, then
        one Finished.

        What can fail cheaply fails before the first event; a later failure ends them with Failed.

        Raises:
            KBError: before the first event only.
        """
        return self._events(self._begin(question))

    def rerun(self, question: Question, looked_up: str) -> Answer:
        """Answer again, without storing it, looking up a question that is worded already.

        Raises:
            KBError
        """
        begun = self._begin(question, looked_up=looked_up)
        return _finished(self._tokens_and_end(begun, is_stored=False))

    def _begin(self, question: Question, *, looked_up: str | None = None) -> "_Begun":
        """Word the question, find its passages, and put these into the order of the prompt."""
        started = time.perf_counter()
        check_question(question)
        answerer = self.answerer
        is_chat = isinstance(answerer, ChatModelAnswerer)
        previous: list[tuple[int, int, int]] = []
        if question.history:
            with self._database.read() as session:
                history = turns_with_traces(session, question.history)
                if is_chat and history and history[-1].trace_id:
                    previous = shown_spans(session, history[-1].trace_id)
            question = replace(question, history=history)
            if looked_up is None:
                complete = answerer.complete if isinstance(answerer, ChatModelAnswerer) else None
                looked_up = self_contained(question.text, history, complete=complete)
        worded = replace(question, text=looked_up or question.text)
        retrieval = self.retriever.search(worded)
        passages: Sequence[Passage] = retrieval.passages
        if previous:
            passages = ordered(passages, previous)
        if is_chat and self._widen_chars:
            passages = self.retriever.widened(passages, room_chars=self._widen_chars)
        return _Begun(
            asked=question,
            looked_up=worded,
            retrieval=retrieval,
            passages=tuple(passages),
            started=started,
            retrieve_ms=_ms_since(started),
        )

    def _events(self, begun: "_Begun") -> Iterator[AnswerEvent]:
        yield Retrieved(begun.passages)
        try:
            yield from self._tokens_and_end(begun)
        except KBError as exc:
            logger.warning("an answer failed: %s", type(exc).__name__)
            yield Failed(type(exc).__name__, str(exc))

    def _tokens_and_end(self, begun: "_Begun", *, is_stored: bool = True) -> Iterator[AnswerEvent]:
        retrieval, looked_up = begun.retrieval, begun.looked_up
        chance = support(
            looked_up.text,
            retrieval.hits,
            stats=retrieval.stats,
            spec=_shared_spec(retrieval),
            background=dense_background(retrieval.candidates),
        )
        threshold = max((base.support_threshold for base in retrieval.bases), default=0.0)
        draft, ttft_ms = None, None
        if not retrieval.hits or chance < threshold:
            text = refusal_text(begun.asked.text)
            yield Token(text)
            ttft_ms = _ms_since(begun.started)
            answer = _refusal(text, chance, begun.passages, self.answerer.model)
        else:
            # A chat model reads the user's own words after the history; sentences are chosen by
            # the words that name what is asked.
            is_chat = isinstance(self.answerer, ChatModelAnswerer)
            for event in self.answerer.answer(
                begun.asked if is_chat else looked_up, begun.passages
            ):
                if isinstance(event, Drafted):
                    draft = event.draft
                    break
                ttft_ms = ttft_ms or _ms_since(begun.started)
                yield event
            if draft is None:
                raise KBError("the answerer ended without an answer")
            answer = self._proven(draft, chance, begun)
        usage = draft.usage if draft else Usage()
        answer = replace(
            answer,
            timings=_timings(begun.retrieve_ms, ttft_ms, _ms_since(begun.started), usage),
            rewritten=looked_up.text if looked_up.text != begun.asked.text else None,
            notices=retrieval.notices,
        )
        if is_stored:
            details = _details(begun, draft, threshold, self.answerer.model)
            answer = self._traced(begun.asked, answer, details)
        yield Finished(answer)

    def _proven(self, draft: Draft, chance: float, begun: "_Begun") -> Answer:
        text, citations, span = self.cited(draft, begun.passages, begun.retrieval.bases)
        return Answer(
            text=text,
            refused=False,
            support=chance,
            answer_span=span,
            citations=citations,
            passages=begun.passages,
            model=self.answerer.model,
            is_cut_off=draft.is_cut_off,
        )

    def cited(
        self, draft: Draft, passages: Sequence[Passage], bases: Sequence[KnowledgeBase]
    ) -> tuple[str, tuple[Citation, ...], AnswerSpan | None]:
        """Prove the citations of an answer from these bases; see `kb.answers.citations.cite`."""
        read = ReadPassages(passages, self.retriever.similarity(bases))
        return cite(draft, passages, read=read)

    def _traced(self, question: Question, answer: Answer, details: Details) -> Answer:
        """Store the answer and give it its trace id; "" where none is kept or the disk is full."""
        trace_id = new_id()
        try:
            with self._database.write() as session:
                drop_old_traces(session, self._trace_days)
                if not self._trace_days:  # answers of before it was set to 0 went just now
                    return answer
                store_trace(
                    session,
                    trace_id=trace_id,
                    question=question.text,
                    answer=answer,
                    created_at=now(),
                    details=details,
                )
        except StorageError as exc:
            logger.warning("an answer could not be stored: %s", exc)
            return answer
        return replace(answer, trace_id=trace_id)

    def _answer(self, question: Question) -> Answer:
        """Run to the end; a failure on the way is raised instead of yielded."""
        return _finished(self._tokens_and_end(self._begin(question)))


@dataclass(frozen=True, slots=True)
class _Begun:
    """A question with what was found for it, before anything is written.

    `asked` has the user's words, `looked_up` those that were searched for; `passages` are in the
    order of the prompt.
    """

    asked: Question
    looked_up: Question
    retrieval: Retrieval
    passages: tuple[Passage, ...]
    started: float
    retrieve_ms: float


def _finished(events: Iterator[AnswerEvent]) -> Answer:
    """Run to the end and return the answer."""
    for event in events:
        if isinstance(event, Finished):
            return event.answer
    raise KBError("the answerer ended without an answer")


def refusal_text(question: str) -> str:
    """Return the refusal in the question's language."""
    return REFUSAL_ZH if has_han(question) else REFUSAL_EN


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


def _details(begun: _Begun, draft: Draft | None, threshold: float, model: str) -> Details:
    """Gather what is stored beside the answer; what the prompt had no room for is marked so."""
    prompt = draft.prompt if draft else None
    shown = {passage.hit.chunk.id: passage.number for passage in begun.passages}

    def fate(candidate: Candidate) -> Candidate:
        number = shown.get(candidate.chunk_id)
        is_cut = not candidate.dropped and prompt is not None and number not in prompt.passages
        return replace(candidate, dropped="prompt_budget") if is_cut else candidate

    return Details(
        question=begun.asked,
        looked_up=replace(begun.looked_up, kbs=tuple(base.id for base in begun.retrieval.bases)),
        candidates=tuple(map(fate, begun.retrieval.candidates)),
        prompt=prompt,
        threshold=threshold,
        software={
            "kb": version("local-kb"),
            "answerer": model,
            "bases": {
                base.id: {
                    "name": base.name,
                    "embedder": base.embedder.identity,
                    "splitter": base.splitter,
                    "fulltext": base.fulltext,
                }
                for base in begun.retrieval.bases
            },
        },
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
