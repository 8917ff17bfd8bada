"""Which chunks a question with a `Filter` may find.

The chunks are chosen before the search, so that both channels rank what is allowed and nothing
else: a filter costs no recall, however few documents it leaves.
"""

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

import numpy as np
from sqlalchemy import ColumnElement, func, or_, select
from sqlalchemy.orm import Session

from kb.errors import InvalidInputError
from kb.protocols import ChunkIds
from kb.records import Filter, KnowledgeBase
from kb.storage.bases import storable
from kb.storage.tables import ChunkRow, DocumentRow, DocumentVersionRow, SourceRow


def allowed_chunks(
    session: Session, bases: Sequence[KnowledgeBase], wanted: Filter
) -> Mapping[str, ChunkIds] | None:
    """Return the ids of the chunks that fit, ascending, by base id; None where all do.

    Raises:
        InvalidInputError: a document, folder or file type that none of the bases has, or no day.
    """
    if wanted == Filter():
        return None
    kb_ids = [base.id for base in bases]
    conditions = _conditions(session, kb_ids, wanted)
    found: dict[str, ChunkIds] = {}
    for kb_id in kb_ids:
        rows = session.execute(
            select(ChunkRow.id)
            .join(DocumentRow, ChunkRow.document_id == DocumentRow.id)
            .join(SourceRow, DocumentRow.source_id == SourceRow.id)
            .join(DocumentVersionRow, DocumentVersionRow.document_id == DocumentRow.id)
            .where(ChunkRow.kb_id == kb_id, DocumentVersionRow.is_current, *conditions)
            .order_by(ChunkRow.id)
        )
        found[kb_id] = np.fromiter((row[0] for row in rows), dtype=np.int64)
    return found


def _conditions(session: Session, kb_ids: Sequence[str], wanted: Filter) -> list[Any]:
    conditions: list[Any] = []
    if wanted.documents:
        named = [_is_named(name) for name in wanted.documents]
        for name, condition in zip(wanted.documents, named, strict=True):
            _check_exists(session, kb_ids, condition, "documents", f"no document named {name!r}")
        conditions.append(or_(*named))
    if wanted.folder:
        below = _is_below(wanted.folder)
        message = f"no document lies below {wanted.folder!r}"
        _check_exists(session, kb_ids, below, "folder", message)
        conditions.append(below)
    if wanted.types:
        for extension in wanted.types:
            message = f"no document is of type {extension!r}"
            _check_exists(session, kb_ids, _is_of_type(extension), "types", message)
        conditions.append(or_(*map(_is_of_type, wanted.types)))
    day = func.substr(DocumentVersionRow.created_at, 1, 10)
    since, until = _day("since", wanted.since), _day("until", wanted.until)
    if since and until and since > until:
        raise InvalidInputError("since", f"{since} is after {until}")
    if since:
        conditions.append(day >= since)
    if until:
        conditions.append(day <= until)
    return conditions


def _is_named(id_or_name: str) -> ColumnElement[bool]:
    name = storable(id_or_name).removeprefix("./")
    return or_(
        DocumentRow.id == name,
        DocumentRow.path == name,
        SourceRow.label + "/" + DocumentRow.path == name,
        SourceRow.root + "/" + DocumentRow.path == name,
    )


def _is_below(folder: str) -> ColumnElement[bool]:
    name = storable(folder).removeprefix("./").rstrip("/")
    prefix = name + "/"
    places = (
        DocumentRow.path,
        SourceRow.label + "/" + DocumentRow.path,
        SourceRow.root + "/" + DocumentRow.path,
    )
    # Compared as it is spelled: LIKE would take "a" for "A", and "_" for any character.
    return or_(*(func.substr(place, 1, len(prefix)) == prefix for place in places))


def _is_of_type(extension: str) -> ColumnElement[bool]:
    suffix = "." + storable(extension).lstrip(".").lower()
    return func.lower(DocumentRow.path).endswith(suffix, autoescape=True)


def _check_exists(
    session: Session, kb_ids: Sequence[str], condition: Any, field: str, message: str
) -> None:
    found = session.scalar(
        select(DocumentRow.id)
        .join(SourceRow, DocumentRow.source_id == SourceRow.id)
        .where(DocumentRow.kb_id.in_(kb_ids), condition)
        .limit(1)
    )
    if found is None:
        raise InvalidInputError(field, message)


def _day(field: str, text: str | None) -> str | None:
    """Return a day as it is stored; it may come as ``2024-03-05`` or any ISO form of a day."""
    if text is None:
        return None
    try:
        return date.fromisoformat(text.strip()).isoformat()
    except ValueError as exc:
        raise InvalidInputError(field, f"{text!r} is no day such as 2024-03-05") from exc
