"""Read stored answers back, with the passages they were made from as far as these are kept."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from kb.errors import StorageError, TraceNotFoundError
from kb.records import ChannelScores, Chunk, Hit, Passage, Turn
from kb.storage.bases import source_record
from kb.storage.documents import display_name
from kb.storage.tables import (
    DocumentRow,
    DocumentVersionRow,
    KnowledgeBaseRow,
    SourceRow,
    TracePassageRow,
    TraceRow,
)
from kb.traces.trace import StoredSpan, Trace, unfolded


def read_trace(session: Session, trace_id: str) -> Trace:
    """Return a stored answer.

    Raises:
        TraceNotFoundError: there is none of that id, or it has been dropped by age.
        StorageError: what is stored of it has not the form that answers are stored in.
    """
    row = session.get(TraceRow, trace_id)
    if row is None:
        raise TraceNotFoundError(trace_id)
    try:
        return _trace(session, row)
    except (AttributeError, KeyError, TypeError, ValueError) as exc:
        raise StorageError(
            f"the record of answer {trace_id} is damaged; it cannot be shown or made again"
        ) from exc


def _trace(session: Session, row: TraceRow) -> Trace:
    spans = _spans(session, row.id)
    shown = [span for kind, span in spans if kind == "passage"]
    candidates = _candidates(session, row.candidates or ())
    passages = _passages(session, shown, (row.request or {}).get("shown", {}))
    return Trace(
        id=row.id,
        question=row.question,
        rewritten=row.rewritten,
        answer=row.answer,
        refused=row.refused,
        support=row.support,
        model=row.model,
        timings=row.timings,
        is_redacted=row.is_redacted,
        created_at=row.created_at,
        answer_span=row.answer_span,
        request=row.request,
        candidates=candidates,
        passages=passages,
        spans=tuple(shown),
        citations=tuple(span for kind, span in spans if kind == "citation"),
        history=_history(session, row.request),
        prompt=unfolded(row.prompt, passages) if row.prompt else None,
    )


def turns_with_traces(session: Session, history: Sequence[Turn]) -> tuple[Turn, ...]:
    """Return the turns with the short answers and whole questions that are stored of them.

    Left out are turns whose stored answer is redacted: the caller's copy holds removed text.
    """
    ids = [turn.trace_id for turn in history if turn.trace_id]
    rows = {row.id: row for row in session.scalars(select(TraceRow).where(TraceRow.id.in_(ids)))}
    turns = []
    for turn in history:
        row = rows.get(turn.trace_id)
        if row is not None and row.is_redacted:
            continue
        short = (row.answer_span or "") if row is not None and row.answer == turn.answer else ""
        turns.append(Turn(turn.question, turn.answer, turn.trace_id if row else "", short))
    return tuple(turns)


def shown_spans(session: Session, trace_id: str) -> list[tuple[int, int, int]]:
    """Return ``(version_id, start, end)`` of an answer's passages in the order of the prompt."""
    rows = session.execute(
        select(TracePassageRow.version_id, TracePassageRow.start, TracePassageRow.end)
        .where(TracePassageRow.trace_id == trace_id, TracePassageRow.kind == "passage")
        .order_by(TracePassageRow.number)
    )
    return [(version_id, start, end) for version_id, start, end in rows]


def _spans(session: Session, trace_id: str) -> list[tuple[str, StoredSpan]]:
    rows = session.execute(
        select(
            TracePassageRow,
            DocumentRow.path,
            SourceRow,
            KnowledgeBaseRow.name,
            DocumentVersionRow.is_current,
        )
        .outerjoin(DocumentRow, DocumentRow.id == TracePassageRow.document_id)
        .outerjoin(SourceRow, SourceRow.id == DocumentRow.source_id)
        .outerjoin(KnowledgeBaseRow, KnowledgeBaseRow.id == DocumentRow.kb_id)
        .outerjoin(DocumentVersionRow, DocumentVersionRow.id == TracePassageRow.version_id)
        .where(TracePassageRow.trace_id == trace_id, TracePassageRow.kind != "history")
        .order_by(TracePassageRow.number)
    )
    return [
        (
            row.kind,
            StoredSpan(
                number=row.number,
                document_id=row.document_id,
                document=display_name(source_record(source), path) if source else "",
                kb=kb or "",
                version_id=row.version_id,
                start=row.start,
                end=row.end,
                is_current=bool(is_current),
                is_kept=is_current is not None,
            ),
        )
        for row, path, source, kb, is_current in rows
    ]


def _candidates(
    session: Session, stored: Sequence[Mapping[str, Any]]
) -> tuple[Mapping[str, Any], ...]:
    """Return the candidates with the names of their documents, "" for those that are gone."""
    ids = {each["document_id"] for each in stored}
    rows = session.execute(
        select(DocumentRow.id, DocumentRow.path, SourceRow)
        .join(SourceRow, SourceRow.id == DocumentRow.source_id)
        .where(DocumentRow.id.in_(ids))
    )
    names = {id_: display_name(source_record(source), path) for id_, path, source in rows}
    return tuple({**each, "document": names.get(each["document_id"], "")} for each in stored)


def _passages(
    session: Session, spans: Sequence[StoredSpan], shown: Mapping[str, Any]
) -> tuple[Passage, ...]:
    """Return the passages as they were shown, without those whose version is gone."""
    kept = [span for span in spans if span.is_kept]
    ids = {span.version_id for span in kept}
    rows = session.execute(
        select(
            DocumentVersionRow.id, DocumentVersionRow.text, DocumentVersionRow.page_starts
        ).where(DocumentVersionRow.id.in_(ids))
    )
    versions = {id_: (text, tuple(pages)) for id_, text, pages in rows}
    passages = []
    for span in kept:
        text, pages = versions[span.version_id]
        said = shown.get(str(span.number), {})
        chunk = Chunk(
            id=0,
            kb_id="",
            document_id=span.document_id,
            version_id=span.version_id,
            position=0,
            start=span.start,
            end=span.end,
            page=said.get("page"),
            heading=said.get("heading", ""),
            text=text[span.start : span.end],
        )
        hit = Hit(
            rank=said.get("rank", span.number),
            score=said.get("score", 0.0),
            kb=span.kb,
            document=said.get("document", span.document),
            chunk=chunk,
            channels=ChannelScores(
                dense=said.get("dense"), lexical=said.get("lexical"), rerank=said.get("rerank")
            ),
        )
        passages.append(Passage(number=span.number, hit=hit, pages=pages))
    return tuple(passages)


def _history(session: Session, request: Mapping[str, Any] | None) -> tuple[Turn, ...]:
    turns = []
    for stored in (request or {}).get("history", ()):
        trace_id = stored.get("trace_id", "")
        row = session.get(TraceRow, trace_id) if trace_id else None
        answer = row.answer if row is not None else stored.get("answer", "")
        short = (row.answer_span or "") if row is not None else ""
        turns.append(Turn(stored["question"], answer, trace_id if row else "", short))
    return tuple(turns)
