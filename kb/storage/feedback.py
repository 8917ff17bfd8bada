"""What users think of stored answers: one thumb per answer, up or down, with a comment.

A comment may repeat text of a document, so feedback goes when its answer is redacted (see
`kb.storage.traces`).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from sqlalchemy import delete, exists, select
from sqlalchemy.orm import Session

from kb.errors import InvalidInputError, TraceNotFoundError
from kb.storage.tables import DocumentRow, FeedbackRow, TracePassageRow, TraceRow

Rating = Literal["up", "down"]
MAX_COMMENT_CHARS = 10_000


@dataclass(frozen=True, slots=True)
class RatedAnswer:
    """A rated answer; `cited` and `shown` are ids of the base's documents, in order.

    `question` is as it was looked up: a follow-up in the words that need no history.
    """

    trace_id: str
    question: str
    refused: bool
    rating: Rating
    comment: str
    cited: tuple[str, ...]
    shown: tuple[str, ...]
    created_at: str


def rate_answer(
    session: Session, trace_id: str, rating: Rating, comment: str, *, created_at: str
) -> None:
    """Store a rating in place of an earlier one of the same answer.

    Raises:
        TraceNotFoundError: there is no such answer.
        InvalidInputError: the answer's text went with its document, or the comment is too long.
    """
    trace = session.get(TraceRow, trace_id)
    if trace is None:
        raise TraceNotFoundError(trace_id)
    if trace.is_redacted:
        raise InvalidInputError("trace", "the answer was removed with its document")
    if len(comment) > MAX_COMMENT_CHARS:
        raise InvalidInputError(
            "comment", f"has {len(comment):,} characters; at most {MAX_COMMENT_CHARS:,}"
        )
    session.merge(
        FeedbackRow(trace_id=trace_id, rating=rating, comment=comment, created_at=created_at)
    )


def forget_rating(session: Session, trace_id: str) -> None:
    """Take a rating back; nothing happens where there is none."""
    session.execute(delete(FeedbackRow).where(FeedbackRow.trace_id == trace_id))


def rated_answers(session: Session, kb_id: str) -> Iterator[RatedAnswer]:
    """Yield the rated answers that were made from documents of this base, oldest first."""
    spans = (
        select(TracePassageRow.kind, TracePassageRow.number, TracePassageRow.document_id)
        .join(DocumentRow, DocumentRow.id == TracePassageRow.document_id)
        .where(DocumentRow.kb_id == kb_id)
        .order_by(TracePassageRow.number)
    )
    is_of_base = exists().where(
        TracePassageRow.trace_id == TraceRow.id,
        TracePassageRow.document_id == DocumentRow.id,
        DocumentRow.kb_id == kb_id,
    )
    rows = session.execute(
        select(TraceRow, FeedbackRow)
        .join(FeedbackRow, FeedbackRow.trace_id == TraceRow.id)
        .where(is_of_base)
        .order_by(FeedbackRow.created_at, TraceRow.created_at, TraceRow.id)
    ).all()
    for trace, feedback in rows:
        found = session.execute(spans.where(TracePassageRow.trace_id == trace.id)).all()
        of_kind = {
            kind: tuple(dict.fromkeys(d for k, _, d in found if k == kind))
            for kind in ("citation", "passage")
        }
        yield RatedAnswer(
            trace_id=trace.id,
            question=trace.rewritten or trace.question,
            refused=trace.refused,
            rating="up" if feedback.rating == "up" else "down",
            comment=feedback.comment,
            cited=of_kind["citation"],
            shown=of_kind["passage"],
            created_at=feedback.created_at,
        )
