"""Knowledge bases and their sources: create, find, list, rename, delete."""

import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal
from uuid import uuid4

from sqlalchemy import Select, delete, func, select
from sqlalchemy.orm import Session

from kb.errors import (
    AlreadyExistsError,
    InvalidInputError,
    KnowledgeBaseDeletedError,
    KnowledgeBaseNotFoundError,
    VersionMismatchError,
)
from kb.records import EmbedderSpec, KnowledgeBase, Source
from kb.storage.fulltext import FullText
from kb.storage.tables import (
    HEX_ID,
    ChunkRow,
    DocumentRow,
    EmbedderRow,
    KnowledgeBaseRow,
    SourceRow,
    TracePassageRow,
)
from kb.storage.traces import redact_documents

MAX_NAME_CHARS = 100


@dataclass(frozen=True, slots=True)
class BaseCounts:
    """How much a knowledge base holds."""

    documents: int
    failed: int
    chunks: int


def new_id() -> str:
    """Return a random 128-bit id as 32 hex digits."""
    return uuid4().hex


def now() -> str:
    """Return the time in UTC as ISO 8601 text, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def check_name(name: str) -> str:
    """Return `name` in NFC without outer white space.

    Raises:
        InvalidInputError: it is empty or long, looks like an id, or holds "/", "\\" or
            control or direction-changing characters.
    """
    clean = unicodedata.normalize("NFC", name).strip()
    if not clean:
        raise InvalidInputError("name", "a knowledge base needs a name")
    if len(clean) > MAX_NAME_CHARS:
        raise InvalidInputError("name", f"{len(clean)} characters; at most {MAX_NAME_CHARS}")
    if HEX_ID.fullmatch(clean):
        raise InvalidInputError("name", "32 hex digits would look like an id; add another letter")
    for character in clean:
        # Cc control, Cf format (direction overrides, zero width), Cs lone surrogate.
        if character in "/\\" or unicodedata.category(character) in {"Cc", "Cf", "Cs"}:
            raise InvalidInputError("name", f"the character {character!r} is not allowed")
    if clean in {".", ".."}:
        raise InvalidInputError("name", f"{clean!r} is not allowed")
    return clean


def storable(name: str) -> str:
    """Return a name for a look-up: NFC, and nothing that UTF-8 cannot hold.

    Lone surrogates stand for undecodable bytes of an argument; they match no stored name.
    """
    return unicodedata.normalize("NFC", name).encode("utf-8", "replace").decode("utf-8")


def create_base(
    session: Session,
    name: str,
    *,
    embedder: EmbedderSpec,
    splitter: str,
    fulltext: str,
    support_threshold: float,
) -> KnowledgeBase:
    """Create an empty knowledge base that pins embedder, splitter and full-text versions.

    Raises:
        InvalidInputError: the name cannot be used.
        AlreadyExistsError: the name is taken.
    """
    clean = check_name(name)
    if session.scalar(select(KnowledgeBaseRow.id).where(KnowledgeBaseRow.name == clean)):
        raise AlreadyExistsError(f"a knowledge base named {clean!r} exists already")
    row = KnowledgeBaseRow(
        id=new_id(),
        name=clean,
        embedder_id=find_or_add_embedder(session, embedder),
        splitter=splitter,
        fulltext=fulltext,
        support_threshold=support_threshold,
        last_seq=0,
        log_floor=0,
        created_at=now(),
    )
    session.add(row)
    session.flush()
    FullText(session, row.id).create()
    return find_base(session, row.id)


def find_base(session: Session, name_or_id: str) -> KnowledgeBase:
    """Return the knowledge base with this id or name.

    Raises:
        KnowledgeBaseNotFoundError: naming those that exist.
    """
    name = storable(name_or_id).strip()
    condition = (
        KnowledgeBaseRow.id == name if HEX_ID.fullmatch(name) else KnowledgeBaseRow.name == name
    )
    found = session.execute(_bases().where(condition)).one_or_none()
    if found is None:
        known = session.scalars(select(KnowledgeBaseRow.name).order_by(KnowledgeBaseRow.name))
        raise KnowledgeBaseNotFoundError(name_or_id, list(known))
    return _record(found[0], found[1])


def list_bases(session: Session) -> list[KnowledgeBase]:
    """Return all knowledge bases by name."""
    rows = session.execute(_bases().order_by(KnowledgeBaseRow.name))
    return [_record(row[0], row[1]) for row in rows]


def count_base(session: Session, kb_id: str) -> BaseCounts:
    """Return how many documents (and how many of them failed) and chunks a base holds."""
    by_status = dict(
        session.execute(
            select(DocumentRow.status, func.count())
            .where(DocumentRow.kb_id == kb_id)
            .group_by(DocumentRow.status)
        ).all()
    )
    chunks = session.scalar(select(func.count()).where(ChunkRow.kb_id == kb_id)) or 0
    return BaseCounts(
        documents=sum(by_status.values()), failed=by_status.get("failed", 0), chunks=chunks
    )


def change_base(
    session: Session,
    base: KnowledgeBase,
    *,
    name: str | None = None,
    support_threshold: float | None = None,
) -> KnowledgeBase:
    """Rename a base or set its threshold; None leaves a value as it is."""
    row = session.get_one(KnowledgeBaseRow, base.id)
    if name is not None:
        clean = check_name(name)
        taken = select(KnowledgeBaseRow.id).where(
            KnowledgeBaseRow.name == clean, KnowledgeBaseRow.id != base.id
        )
        if session.scalar(taken):
            raise AlreadyExistsError(f"a knowledge base named {clean!r} exists already")
        row.name = clean
    if support_threshold is not None:
        if not 0 <= support_threshold <= 1:
            raise InvalidInputError("support_threshold", "must lie between 0 and 1")
        row.support_threshold = support_threshold
    session.flush()
    return find_base(session, base.id)


def store_calibration(
    session: Session,
    base: KnowledgeBase,
    *,
    threshold: float,
    channel_weights: Mapping[str, float] | None,
    report: Mapping[str, Any],
) -> None:
    """Store what `kb.refusal.calibrate` measured, in place of an earlier measurement."""
    row = session.get(KnowledgeBaseRow, base.id)
    if row is None:
        raise KnowledgeBaseDeletedError(base.name)
    row.support_threshold = threshold
    row.channel_weights = dict(channel_weights) if channel_weights else None
    row.calibration_report = dict(report)


def calibration_report(session: Session, kb_id: str) -> dict[str, Any] | None:
    """Return the report of the last `kb calibrate`, None if there was none."""
    return session.get_one(KnowledgeBaseRow, kb_id).calibration_report


def delete_base(session: Session, base: KnowledgeBase) -> None:
    """Delete a base with everything in it; stored answers that used it are redacted."""
    used = select(TracePassageRow.document_id).where(
        TracePassageRow.document_id.in_(select(DocumentRow.id).where(DocumentRow.kb_id == base.id))
    )
    redact_documents(session, list(session.scalars(used.distinct())))
    FullText(session, base.id).drop()
    session.execute(delete(KnowledgeBaseRow).where(KnowledgeBaseRow.id == base.id))


def find_or_add_source(session: Session, kb_id: str, *, kind: str, root: str, label: str) -> Source:
    """Return the source with this root, made if needed; its label becomes the one given.

    Raises:
        KnowledgeBaseNotFoundError: there is no such base.
    """
    row = session.scalar(
        select(SourceRow).where(
            SourceRow.kb_id == kb_id, SourceRow.kind == kind, SourceRow.root == root
        )
    )
    if row is None:
        find_base(session, kb_id)  # or the base was deleted meanwhile
        row = SourceRow(id=new_id(), kb_id=kb_id, kind=kind, root=root, label=label)
        session.add(row)
    row.label = label
    session.flush()
    return source_record(row)


def list_sources(session: Session, kb_id: str) -> list[Source]:
    """Return a base's sources by root."""
    rows = session.scalars(
        select(SourceRow).where(SourceRow.kb_id == kb_id).order_by(SourceRow.root)
    )
    return [source_record(row) for row in rows]


def check_versions(base: KnowledgeBase, *, embedder: EmbedderSpec | None, splitter: str) -> None:
    """Refuse to write into a base whose embedder is not here, or that another splitter built.

    Raises:
        VersionMismatchError: naming the command that helps.
    """
    if embedder is None or base.embedder.identity != embedder.identity:
        raise VersionMismatchError(
            f"knowledge base {base.name!r} was built with the embedder {base.embedder.name!r} "
            f"({base.embedder.identity}), which is not here, and vectors of two cannot be mixed: "
            "install that embedder again, or move the base to another with `kb reembed`"
        )
    if base.splitter != splitter:
        raise VersionMismatchError(
            f"knowledge base {base.name!r} was split by {base.splitter!r}, this version splits by "
            f"{splitter!r}; run `kb verify --repair` to split the stored texts again"
        )


def check_fulltext_version(base: KnowledgeBase, fulltext: str) -> None:
    """Refuse to use full-text rows that other rules made.

    Raises:
        VersionMismatchError: naming the command that makes them again.
    """
    if base.fulltext != fulltext:
        raise VersionMismatchError(
            f"the full text of knowledge base {base.name!r} was made by {base.fulltext!r}, this "
            f"version uses {fulltext!r}; run `kb verify --repair` to make it again"
        )


def source_record(row: SourceRow) -> Source:
    kind: Literal["folder", "upload"] = "folder" if row.kind == "folder" else "upload"
    return Source(id=row.id, kb_id=row.kb_id, kind=kind, root=row.root, label=row.label)


def find_or_add_embedder(session: Session, spec: EmbedderSpec) -> int:
    """Return the id of the embedder with this identity; its scripts become those given."""
    row = session.scalar(select(EmbedderRow).where(EmbedderRow.identity == spec.identity))
    if row is None:
        row = EmbedderRow(
            identity=spec.identity,
            name=spec.name,
            dimension=spec.dimension,
            scripts=sorted(spec.scripts),
        )
        session.add(row)
    row.scripts = sorted(spec.scripts)
    session.flush()
    return row.id


def _bases() -> Select[KnowledgeBaseRow, EmbedderRow]:
    return select(KnowledgeBaseRow, EmbedderRow).join(
        EmbedderRow, KnowledgeBaseRow.embedder_id == EmbedderRow.id
    )


def _record(row: KnowledgeBaseRow, embedder: EmbedderRow) -> KnowledgeBase:
    return KnowledgeBase(
        id=row.id,
        name=row.name,
        embedder_id=embedder.id,
        embedder=EmbedderSpec(
            name=embedder.name,
            identity=embedder.identity,
            dimension=embedder.dimension,
            scripts=frozenset(embedder.scripts),
        ),
        splitter=row.splitter,
        fulltext=row.fulltext,
        support_threshold=row.support_threshold,
        created_at=row.created_at,
        channel_weights=row.channel_weights,
    )
