"""The schema. One class per table; columns say what they mean, migrations make them.

    knowledge_base 1─n source 1─n document 1─n document_version
                                      │ 1
                                      n
    embedder 1─n embedding 1─n ─── chunk            change_log, index_snapshot: per base
    job 1─n job_file                                trace 1─n trace_passage
                                                    trace 1─1 feedback

A document's text is stored once, in its current `document_version`; a chunk is a span of it.
Old versions stay only while a stored citation names them. The full-text rows live in one FTS5 table
per knowledge base (see `kb.storage.sqlite`), since BM25 statistics are per base.
"""

import re
from typing import Any

from sqlalchemy import (
    JSON,
    CheckConstraint,
    ForeignKey,
    Index,
    LargeBinary,
    MetaData,
    String,
    Text,
    UniqueConstraint,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    # Named constraints, so that a later migration can change one.
    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(column_0_label)s",
            "uq": "uq_%(table_name)s_%(column_0_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


# What each JSON column holds at its top, for `kb verify`.
ARRAY: dict[Any, Any] = {"json": "array"}
OBJECT: dict[Any, Any] = {"json": "object"}

HexId = String(32)
HEX_ID = re.compile(r"[0-9a-f]{32}")  # what it holds


class EmbedderRow(Base):
    __tablename__ = "embedder"

    id: Mapped[int] = mapped_column(primary_key=True)
    identity: Mapped[str] = mapped_column(Text, unique=True)
    name: Mapped[str] = mapped_column(Text)
    dimension: Mapped[int]
    scripts: Mapped[list[str]] = mapped_column(JSON, info=ARRAY)


class KnowledgeBaseRow(Base):
    __tablename__ = "knowledge_base"

    id: Mapped[str] = mapped_column(HexId, primary_key=True)
    name: Mapped[str] = mapped_column(Text, unique=True)
    embedder_id: Mapped[int] = mapped_column(ForeignKey("embedder.id"))
    splitter: Mapped[str] = mapped_column(Text)
    fulltext: Mapped[str] = mapped_column(Text)
    support_threshold: Mapped[float]
    # The change log's head and floor: events with floor < seq <= last_seq are in the log.
    last_seq: Mapped[int] = mapped_column(default=0)
    log_floor: Mapped[int] = mapped_column(default=0)
    created_at: Mapped[str] = mapped_column(Text)
    # What `kb calibrate` measured: weights by channel, and the report with its curve.
    channel_weights: Mapped[dict[str, float] | None] = mapped_column(
        JSON(none_as_null=True), info=OBJECT
    )
    calibration_report: Mapped[dict[str, Any] | None] = mapped_column(
        JSON(none_as_null=True), info=OBJECT
    )


class SourceRow(Base):
    __tablename__ = "source"
    __table_args__ = (
        UniqueConstraint("kb_id", "kind", "root"),
        CheckConstraint("kind IN ('folder', 'upload')", name="kind"),
    )

    id: Mapped[str] = mapped_column(HexId, primary_key=True)
    kb_id: Mapped[str] = mapped_column(ForeignKey("knowledge_base.id", ondelete="CASCADE"))
    kind: Mapped[str] = mapped_column(Text)
    root: Mapped[str] = mapped_column(Text)
    label: Mapped[str] = mapped_column(Text)


class DocumentRow(Base):
    __tablename__ = "document"
    __table_args__ = (
        UniqueConstraint("source_id", "path"),
        CheckConstraint("status IN ('ready', 'empty', 'failed')", name="status"),
        Index("document_by_kb", "kb_id", "path"),
    )

    id: Mapped[str] = mapped_column(HexId, primary_key=True)
    kb_id: Mapped[str] = mapped_column(ForeignKey("knowledge_base.id", ondelete="CASCADE"))
    source_id: Mapped[str] = mapped_column(ForeignKey("source.id", ondelete="CASCADE"))
    path: Mapped[str] = mapped_column(Text)  # relative to the source, "/" separators, NFC
    status: Mapped[str] = mapped_column(Text)
    # The bytes whose chunks are stored; set only in the transaction that stores them.
    content_hash: Mapped[str | None] = mapped_column(String(64), index=True)
    size_bytes: Mapped[int] = mapped_column(default=0)
    # Size, times and inode of the file that was read: equal means not read again. "" is unknown.
    stat_key: Mapped[str] = mapped_column(Text, default="")
    # The last failure: the reason, the bytes and the loader version that gave it.
    error: Mapped[str | None] = mapped_column(Text)
    failed_hash: Mapped[str | None] = mapped_column(String(64))
    failed_loader: Mapped[str | None] = mapped_column(Text)
    updated_at: Mapped[str] = mapped_column(Text)
    # [kind, detail] of what the owner should look at; of the bytes of `content_hash`.
    flags: Mapped[list[list[str]]] = mapped_column(JSON, default=list, info=ARRAY)


class DocumentVersionRow(Base):
    __tablename__ = "document_version"
    # AUTOINCREMENT: an id is never reused, so a process may cache a version's text by id.
    __table_args__ = (
        Index("version_by_document", "document_id", "is_current"),
        {"sqlite_autoincrement": True},
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    document_id: Mapped[str] = mapped_column(ForeignKey("document.id", ondelete="CASCADE"))
    is_current: Mapped[bool] = mapped_column(default=True)
    content_hash: Mapped[str] = mapped_column(String(64))
    text: Mapped[str] = mapped_column(Text)
    page_starts: Mapped[list[int]] = mapped_column(JSON, info=ARRAY)
    headings: Mapped[list[list[Any]]] = mapped_column(
        JSON, info=ARRAY
    )  # [start, level, title], by start
    encoding: Mapped[str | None] = mapped_column(Text)
    encoding_guessed: Mapped[bool] = mapped_column(default=False)
    loader: Mapped[str] = mapped_column(Text)
    created_at: Mapped[str] = mapped_column(Text)


class EmbeddingRow(Base):
    __tablename__ = "embedding"
    __table_args__ = (UniqueConstraint("embedder_id", "text_hash"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    embedder_id: Mapped[int] = mapped_column(ForeignKey("embedder.id"))
    # SHA-256 of the exact string embedded: heading path and text, never a file name.
    text_hash: Mapped[bytes] = mapped_column(LargeBinary(32))
    vector: Mapped[bytes] = mapped_column(LargeBinary)  # dimension × float16, little-endian


class ChunkRow(Base):
    __tablename__ = "chunk"
    # AUTOINCREMENT: ids are never reused, so an index never confuses two chunks.
    __table_args__ = (
        Index("chunk_by_document", "document_id", "position"),
        Index("chunk_by_embedding", "embedding_id"),
        Index("chunk_by_kb", "kb_id"),
        {"sqlite_autoincrement": True},
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    kb_id: Mapped[str] = mapped_column(ForeignKey("knowledge_base.id", ondelete="CASCADE"))
    document_id: Mapped[str] = mapped_column(ForeignKey("document.id", ondelete="CASCADE"))
    embedding_id: Mapped[int] = mapped_column(ForeignKey("embedding.id"))
    position: Mapped[int]
    start: Mapped[int]
    end: Mapped[int]
    page: Mapped[int | None]
    heading: Mapped[str] = mapped_column(Text)


class ChangeRow(Base):
    """One event of a base's change log: chunk added (op 1) or removed (op -1)."""

    __tablename__ = "change_log"
    __table_args__ = (CheckConstraint("op IN (1, -1)", name="op"), {"sqlite_with_rowid": False})

    kb_id: Mapped[str] = mapped_column(
        ForeignKey("knowledge_base.id", ondelete="CASCADE"), primary_key=True
    )
    seq: Mapped[int] = mapped_column(primary_key=True)
    chunk_id: Mapped[int]  # no foreign key: the chunk of a removal is gone
    op: Mapped[int]


class SnapshotRow(Base):
    """A FAISS file that counts: it holds the base's vectors as of `seq`."""

    __tablename__ = "index_snapshot"
    __table_args__ = (Index("snapshot_by_kb", "kb_id", "seq"),)

    id: Mapped[str] = mapped_column(HexId, primary_key=True)  # also the file's stem
    kb_id: Mapped[str] = mapped_column(ForeignKey("knowledge_base.id", ondelete="CASCADE"))
    seq: Mapped[int]
    n_chunks: Mapped[int]
    sha256: Mapped[str] = mapped_column(String(64))
    created_at: Mapped[str] = mapped_column(Text)


class JobRow(Base):
    __tablename__ = "job"
    __table_args__ = (
        CheckConstraint("kind IN ('ingest', 'upload')", name="kind"),
        CheckConstraint(
            "state IN ('queued', 'running', 'done', 'failed', 'cancelled', 'interrupted')",
            name="state",
        ),
        Index("job_by_state", "state"),
    )

    id: Mapped[str] = mapped_column(HexId, primary_key=True)
    kb_id: Mapped[str] = mapped_column(ForeignKey("knowledge_base.id", ondelete="CASCADE"))
    kind: Mapped[str] = mapped_column(Text)
    state: Mapped[str] = mapped_column(Text)
    owner: Mapped[str] = mapped_column(Text, default="")  # random id of the process at work
    heartbeat_at: Mapped[float] = mapped_column(default=0.0)  # unix seconds
    cancel_asked: Mapped[bool] = mapped_column(default=False)
    options: Mapped[dict[str, Any]] = mapped_column(JSON, info=OBJECT)
    progress: Mapped[dict[str, Any]] = mapped_column(JSON, info=OBJECT)
    report: Mapped[dict[str, Any] | None] = mapped_column(JSON, info=OBJECT)
    error: Mapped[str | None] = mapped_column(Text)
    error_type: Mapped[str | None] = mapped_column(Text)  # the class of the failure
    created_at: Mapped[str] = mapped_column(Text)


class JobFileRow(Base):
    """One uploaded file of a job: its display path and the blob that holds its bytes."""

    __tablename__ = "job_file"
    __table_args__ = (Index("job_file_by_blob", "blob"),)

    job_id: Mapped[str] = mapped_column(ForeignKey("job.id", ondelete="CASCADE"), primary_key=True)
    path: Mapped[str] = mapped_column(Text, primary_key=True)
    blob: Mapped[str] = mapped_column(String(64))
    size_bytes: Mapped[int]
    state: Mapped[str] = mapped_column(Text, default="queued")
    error: Mapped[str | None] = mapped_column(Text)


class TraceRow(Base):
    """One answered question, and how it was answered.

    Redacted when a document it used is removed: everything but the question may hold its text.
    """

    __tablename__ = "trace"
    __table_args__ = (Index("trace_by_time", "created_at"),)

    id: Mapped[str] = mapped_column(HexId, primary_key=True)
    question: Mapped[str] = mapped_column(Text)
    answer: Mapped[str] = mapped_column(Text)
    refused: Mapped[bool]
    support: Mapped[float]
    model: Mapped[str] = mapped_column(Text)
    timings: Mapped[dict[str, Any]] = mapped_column(JSON, info=OBJECT)
    is_redacted: Mapped[bool] = mapped_column(default=False)
    created_at: Mapped[str] = mapped_column(Text)
    rewritten: Mapped[str | None] = mapped_column(Text)  # as it was looked up, if otherwise
    answer_span: Mapped[str | None] = mapped_column(Text)
    # Parameters, software and history; `kb.traces.trace` says what is in it.
    request: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True), info=OBJECT)
    candidates: Mapped[list[Any] | None] = mapped_column(JSON(none_as_null=True), info=ARRAY)
    # Messages as sent, with references in place of passages.
    prompt: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True), info=OBJECT)
    # Whether the history came from the caller, so that nobody knows whose text it is.
    has_foreign_text: Mapped[bool] = mapped_column(default=False)


class TracePassageRow(Base):
    """A span of a document that a trace's passages or citations hold, without its text."""

    __tablename__ = "trace_passage"
    __table_args__ = (
        Index("trace_passage_by_document", "document_id"),
        Index("trace_passage_by_version", "version_id"),
    )

    trace_id: Mapped[str] = mapped_column(
        ForeignKey("trace.id", ondelete="CASCADE"), primary_key=True
    )
    kind: Mapped[str] = mapped_column(Text, primary_key=True)  # passage, citation or history
    number: Mapped[int] = mapped_column(primary_key=True)
    # No foreign keys: the deleting transaction redacts the trace and removes these rows.
    document_id: Mapped[str] = mapped_column(HexId)
    version_id: Mapped[int]
    start: Mapped[int]
    end: Mapped[int]
    quote: Mapped[str] = mapped_column(Text, default="")


class FeedbackRow(Base):
    """What a user thinks of one stored answer. Goes when the answer is redacted."""

    __tablename__ = "feedback"
    __table_args__ = (CheckConstraint("rating IN ('up', 'down')", name="rating"),)

    trace_id: Mapped[str] = mapped_column(
        ForeignKey("trace.id", ondelete="CASCADE"), primary_key=True
    )
    rating: Mapped[str] = mapped_column(Text)
    comment: Mapped[str] = mapped_column(Text, default="")
    created_at: Mapped[str] = mapped_column(Text)
