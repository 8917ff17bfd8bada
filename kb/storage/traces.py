"""Stored answers: what was asked, what was answered, and which spans were shown and cited.

Passages are kept as references without text; only cited quotes are copied. When a document
goes, everything here that may hold its text is redacted in the same transaction.
"""

from collections.abc import Sequence

from sqlalchemy import delete, exists, insert, select, update
from sqlalchemy.orm import Session

from kb.records import Answer
from kb.storage.sqlite import MAX_VALUES
from kb.storage.tables import DocumentVersionRow, FeedbackRow, TracePassageRow, TraceRow

REDACTED = "[removed with its document]"


def store_trace(
    session: Session, *, trace_id: str, question: str, answer: Answer, created_at: str
) -> None:
    """Store one answer with the spans it was made from.

    A document may have changed or gone while the answer was written; what was read of it is
    then not stored.
    """
    versions = {passage.hit.chunk.version_id for passage in answer.passages}
    kept = set(
        session.scalars(select(DocumentVersionRow.id).where(DocumentVersionRow.id.in_(versions)))
    )
    is_redacted = kept != versions
    session.add(
        TraceRow(
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
    rows = [
        {
            "trace_id": trace_id,
            "kind": "passage",
            "number": passage.number,
            "document_id": passage.hit.chunk.document_id,
            "version_id": passage.hit.chunk.version_id,
            "start": passage.hit.chunk.start,
            "end": passage.hit.chunk.end,
            "quote": "",
        }
        for passage in answer.passages
    ] + [
        {
            "trace_id": trace_id,
            "kind": "citation",
            "number": number,
            "document_id": citation.document_id,
            "version_id": citation.version_id,
            "start": citation.start,
            "end": citation.end,
            "quote": citation.quote,
        }
        for number, citation in enumerate(answer.citations, start=1)
    ]
    if rows:
        session.execute(insert(TracePassageRow), rows)


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
    """Redact every stored answer that was shown a span of these documents; return how many."""
    trace_ids: set[str] = set()
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
            update(TraceRow).where(TraceRow.id.in_(part)).values(answer=REDACTED, is_redacted=True)
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
    values = {"answer": REDACTED, "is_redacted": True}
    if with_questions:
        values["question"] = REDACTED
    for first in range(0, len(trace_ids), MAX_VALUES):
        part = trace_ids[first : first + MAX_VALUES]
        session.execute(update(TraceRow).where(TraceRow.id.in_(part)).values(values))
        session.execute(delete(TracePassageRow).where(TracePassageRow.trace_id.in_(part)))
        session.execute(delete(FeedbackRow).where(FeedbackRow.trace_id.in_(part)))
