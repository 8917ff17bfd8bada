"""What killed processes leave behind: harmless, but space, and text that nobody needs.

Each kind goes by itself sooner or later (a sync sweeps vectors, a new snapshot clears old files);
`kb verify` lists them, `kb verify --repair` and `kb docs remove --prove` remove them at once.
Nothing counts as left over while a job is at work that may need it.
"""

import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import delete, exists, func, select
from sqlalchemy.orm import Session

from kb.storage import sqlite
from kb.storage.blobs import Blobs
from kb.storage.database import Database
from kb.storage.embeddings import sweep_embeddings
from kb.storage.jobs import HEARTBEAT_LIFETIME_S, is_any_job_live, mark_interrupted
from kb.storage.tables import (
    ChunkRow,
    DocumentVersionRow,
    EmbeddingRow,
    JobRow,
    KnowledgeBaseRow,
    SnapshotRow,
    TracePassageRow,
)


@dataclass(frozen=True, slots=True)
class Leftover:
    """One kind of remains: what they are, and how they go (inside a write session)."""

    detail: str
    remove: Callable[[Session], None]


def find_leftovers(database: Database, blobs: Blobs) -> list[Leftover]:
    """Return what is left over now; nothing while a job is live."""
    with database.read() as session:
        if is_any_job_live(session):
            return []
        return [*_rows(session), *_files(session, database.path.parent, blobs)]


def remove_leftovers(database: Database, blobs: Blobs) -> list[str]:
    """Remove what is left over, and return what that was."""
    done = []
    with database.write() as session:  # the lock keeps new jobs from beginning meanwhile
        if is_any_job_live(session):
            return []
        for leftover in (*_rows(session), *_files(session, database.path.parent, blobs)):
            leftover.remove(session)
            done.append(leftover.detail)
    return done


def _rows(session: Session) -> Iterator[Leftover]:
    unused = ~exists().where(ChunkRow.embedding_id == EmbeddingRow.id)
    if n := session.scalar(select(func.count()).select_from(EmbeddingRow).where(unused)):
        yield Leftover(f"{n} vectors that no chunk uses", lambda s: _ignored(sweep_embeddings(s)))

    is_cited = exists().where(
        TracePassageRow.version_id == DocumentVersionRow.id, TracePassageRow.kind == "citation"
    )
    # Two steps: ids come from indexes alone, so texts are not read.
    old = select(DocumentVersionRow.id).where(~DocumentVersionRow.is_current, ~is_cited)
    if ids := session.scalars(old).all():
        yield Leftover(
            f"{len(ids)} old versions that no stored answer cites",
            lambda s: _ignored(
                s.execute(delete(DocumentVersionRow).where(DocumentVersionRow.id.in_(ids)))
            ),
        )

    dead = select(func.count()).where(
        JobRow.state == "running",
        JobRow.kind == "ingest",
        JobRow.heartbeat_at < time.time() - HEARTBEAT_LIFETIME_S,
    )
    if n := session.scalar(dead):
        yield Leftover(f"{n} ingests whose process died", lambda s: _ignored(mark_interrupted(s)))

    kb_ids = set(session.scalars(select(KnowledgeBaseRow.id)))
    for kb_id in sorted(sqlite.fulltext_tables(session) - kb_ids):
        yield Leftover(
            f"full text of {kb_id}, which is no knowledge base any more",
            lambda s, id_=kb_id: sqlite.drop_fulltext(s, id_),  # type: ignore[misc]
        )


def _files(session: Session, home: Path, blobs: Blobs) -> Iterator[Leftover]:
    if unused := blobs.unused(session):
        yield Leftover(
            f"{len(unused)} uploaded files that no document uses",
            lambda s: _ignored(blobs.drop_unused(s, unused)),
        )
    if n := len(blobs.abandoned()):
        yield Leftover(f"{n} unfinished uploads", lambda _: _ignored(blobs.drop_abandoned()))
    named = set(session.scalars(select(SnapshotRow.id)))
    kb_ids = set(session.scalars(select(KnowledgeBaseRow.id)))
    index = home / "index"
    for folder in sorted(index.glob("*/")):
        if folder.name not in kb_ids:
            yield Leftover(
                f"index/{folder.name}, of no knowledge base",
                lambda _, f=folder: shutil.rmtree(f, ignore_errors=True),  # type: ignore[misc]
            )
            continue
        files = [path for path in folder.iterdir() if path.stem not in named]
        if files:
            yield Leftover(
                f"{len(files)} index files that the database does not name",
                lambda _, fs=tuple(files): _unlink(fs),  # type: ignore[misc]
            )


def _unlink(paths: tuple[Path, ...]) -> None:
    for path in paths:
        path.unlink(missing_ok=True)


def _ignored(_result: object) -> None:
    """Drop a result that only others need."""
