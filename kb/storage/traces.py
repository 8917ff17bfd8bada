"""Stored answers: what was asked, what was answered, and which spans were shown and cited.

Passages are kept as references without text; only cited quotes are copied. When a document
goes, everything here that may hold its text is redacted in the same transaction: answers that
were shown it, answers after which those were history, and, of a history that came from the
caller, whatever was made of it, since nobody knows whose text that is; a chat model's answer,
too, may repeat it.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import delete, exists, insert, select, update
from sqlalchemy.orm import Session

from kb.records import Answer, Candidate, Chunk, Citation, Passage, Turn
from kb.storage.sqlite import MAX_VALUES
from kb.storage.tables import DocumentVersionRow, FeedbackRow, TracePassageRow, TraceRow
from kb.traces.trace import Details, folded, request_of

REDACTED = "[removed with its document]"
# What goes with the answer: all of it may hold text or names of the document.
_FORGOTTEN = {
    "rewritten": None,
    "answer_span": None,
    "request": None,
    "candidates": None,
    "prompt": None,
    "has_foreign_text": False,
}
# Candidates kept with an answer.
MAX_CANDIDATES = 100


def store_trace(
    session: Session,
    *,
    trace_id: str,
    question: str,
    answer: Answer,
    created_at: str,
    details: Details | None = None,
) -> None:
    """Store one answer with the spans it was made from, and how it was made.

    A document may have changed or gone while the answer was written, or an answer in its history
    have been redacted; what was made of them is then not stored.
    """
    versions = {passage.hit.chunk.version_id for passage in answer.passages}
    kept = set(
        session.scalars(select(DocumentVersionRow.id).where(DocumentVersionRow.id.in_(versions)))
    )
    history = details.question.history if details else ()
    is_redacted = kept != versions or _has_redacted(session, history)
    known = _known_turns(session, history)
    extra: dict[str, Any] = {}
    if details is not None and not is_redacted:
        extra = _extra(answer, details, known, is_foreign=_is_foreign(session, known))
    session.add(
        TraceRow(
            **extra,
            id=trace_id,
            question=question,
            answer=REDACTED if is_redacted else answer.text,
            refused=answer.refused,
            support=answer.support,
            model=answer.model,
            timings=dict(answer.timings),
            is_redacted=is_redacted,
            created_at=created_at,
        )
    )
    session.flush()
    if is_redacted:
        return
    shown = [_row(p.number, p.hit.chunk) for p in answer.passages]
    cited = [_row(n, c) | {"quote": c.quote} for n, c in enumerate(answer.citations, start=1)]
    before = [
        {"number": n, "document_id": id_, "version_id": 0, "start": 0, "end": 0}
        for n, id_ in enumerate(_documents_of(session, known), start=1)
    ]
    rows = [
        {"quote": "", **row, "trace_id": trace_id, "kind": kind}
        for kind, found in (("passage", shown), ("citation", cited), ("history", before))
        for row in found
    ]
    if rows:
        session.execute(insert(TracePassageRow), rows)


def _row(number: int, span: Chunk | Citation) -> dict[str, Any]:
    return {
        "number": number,
        "document_id": span.document_id,
        "version_id": span.version_id,
        "start": span.start,
        "end": span.end,
    }


def _known_turns(session: Session, history: Sequence[Turn]) -> list[str | None]:
    """Return the trace of each turn whose answer is the stored one, None for the others."""
    ids = [turn.trace_id for turn in history if turn.trace_id]
    rows = session.execute(select(TraceRow.id, TraceRow.answer).where(TraceRow.id.in_(ids)))
    answers: dict[str, str] = {row.id: row.answer for row in rows}
    return [
        turn.trace_id if answers.get(turn.trace_id) == turn.answer else None for turn in history
    ]


def _has_redacted(session: Session, history: Sequence[Turn]) -> bool:
    """Tell whether a turn's answer was redacted: its words are those of a removed document."""
    ids = [turn.trace_id for turn in history if turn.trace_id]
    is_there = exists().where(TraceRow.id.in_(ids), TraceRow.is_redacted)
    return bool(ids and session.scalar(select(is_there)))


def _documents_of(session: Session, trace_ids: Sequence[str | None]) -> list[str]:
    """Return the documents whose text these answers may hold, by what they were shown."""
    ids = [id_ for id_ in trace_ids if id_ is not None]
    rows = select(TracePassageRow.document_id).where(TracePassageRow.trace_id.in_(ids)).distinct()
    return list(session.scalars(rows)) if ids else []


def _is_foreign(session: Session, known: Sequence[str | None]) -> bool:
    """Tell whether a turn came from the caller, or was itself made of one that did."""
    is_inherited = exists().where(TraceRow.id.in_(filter(None, known)), TraceRow.has_foreign_text)
    return None in known or bool(known and session.scalar(select(is_inherited)))


def _extra(
    answer: Answer, details: Details, known: Sequence[str | None], *, is_foreign: bool
) -> dict[str, Any]:
    history = [
        {"question": turn.question, "trace_id": trace_id}
        if trace_id
        else {"question": turn.question, "answer": turn.answer}
        for turn, trace_id in zip(details.question.history, known, strict=True)
    ]
    passages = answer.passages
    return {
        "rewritten": answer.rewritten,
        "answer_span": answer.answer_span.text if answer.answer_span else None,
        "request": request_of(details)
        | {"history": history, "shown": {str(p.number): _shown(p) for p in passages}},
        "candidates": [_candidate(each) for each in details.candidates[:MAX_CANDIDATES]],
        "prompt": folded(details.prompt, passages) if details.prompt else None,
        "has_foreign_text": is_foreign,
    }


def _shown(passage: Passage) -> dict[str, Any]:
    """Return what was said of a passage beside its text, which may change with the document."""
    hit = passage.hit
    return {
        "document": hit.document,
        "heading": hit.chunk.heading,
        "page": hit.chunk.page,
        "rank": hit.rank,
        "score": round(hit.score, 6),
        **hit.channels.to_dict(),
    }


def _candidate(candidate: Candidate) -> dict[str, Any]:
    """Return a candidate for storage: without the document's name, which may be removed."""
    fields = candidate.to_dict()
    del fields["document"]
    return {
        name: round(value, 6) if isinstance(value, float) else value
        for name, value in fields.items()
    }


def drop_old_traces(session: Session, days: int) -> int:
    """Delete answers that are older than `days`, all of them for 0; return how many."""
    old = delete(TraceRow)
    if days:
        oldest = (datetime.now(UTC) - timedelta(days=days)).isoformat(timespec="seconds")
        old = old.where(TraceRow.created_at < oldest)
    result = session.execute(old)
    if count := int(result.rowcount):  # type: ignore[attr-defined]
        drop_uncited_versions(session)
    return count


def is_version_cited(session: Session, version_id: int) -> bool:
    """Tell whether a stored answer cites this document version."""
    return bool(
        session.scalar(
            select(
                exists().where(
                    TracePassageRow.version_id == version_id, TracePassageRow.kind == "citation"
                )
            )
        )
    )


def redact_documents(session: Session, document_ids: Sequence[str]) -> int:
    """Redact every stored answer that may hold text of these documents; return how many."""
    trace_ids: set[str] = set()
    if document_ids:
        # Whose text the callers' histories hold is not known: that of these documents, maybe.
        # Only a chat model, which has a prompt, can have repeated it in its answer.
        is_chat = TraceRow.prompt.is_not(None)
        trace_ids.update(
            session.scalars(select(TraceRow.id).where(TraceRow.has_foreign_text, is_chat))
        )
        session.execute(
            update(TraceRow).where(TraceRow.has_foreign_text, ~is_chat).values(_FORGOTTEN)
        )
    for first in range(0, len(document_ids), MAX_VALUES):
        trace_ids.update(
            session.scalars(
                select(TracePassageRow.trace_id).where(
                    TracePassageRow.document_id.in_(document_ids[first : first + MAX_VALUES])
                )
            )
        )
    for first in range(0, len(trace_ids), MAX_VALUES):
        part = sorted(trace_ids)[first : first + MAX_VALUES]
        session.execute(
            update(TraceRow)
            .where(TraceRow.id.in_(part))
            .values(answer=REDACTED, is_redacted=True, **_FORGOTTEN)
        )
        # The whole answer is gone, so its other quotes go too, and what was said of it.
        session.execute(delete(TracePassageRow).where(TracePassageRow.trace_id.in_(part)))
        session.execute(delete(FeedbackRow).where(FeedbackRow.trace_id.in_(part)))
    if trace_ids:
        drop_uncited_versions(session)
    return len(trace_ids)


def drop_uncited_versions(session: Session) -> int:
    """Delete old document versions that no stored answer cites any more; return how many."""
    is_cited = exists().where(
        TracePassageRow.version_id == DocumentVersionRow.id, TracePassageRow.kind == "citation"
    )
    # The inner select is answered by an index alone; texts are not read.
    old = select(DocumentVersionRow.id).where(~DocumentVersionRow.is_current, ~is_cited)
    result = session.execute(delete(DocumentVersionRow).where(DocumentVersionRow.id.in_(old)))
    return int(result.rowcount)  # type: ignore[attr-defined]


def redact_traces(
    session: Session, trace_ids: Sequence[str], *, with_questions: bool = False
) -> None:
    """Redact these answers and drop what they were shown; their questions only if asked to."""
    values: dict[str, Any] = {"answer": REDACTED, "is_redacted": True, **_FORGOTTEN}
    if with_questions:
        values["question"] = REDACTED
    for first in range(0, len(trace_ids), MAX_VALUES):
        part = trace_ids[first : first + MAX_VALUES]
        session.execute(update(TraceRow).where(TraceRow.id.in_(part)).values(values))
        session.execute(delete(TracePassageRow).where(TracePassageRow.trace_id.in_(part)))
        session.execute(delete(FeedbackRow).where(FeedbackRow.trace_id.in_(part)))
