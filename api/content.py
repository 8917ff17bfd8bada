"""The original bytes of a document, for saving: proven to be the bytes that were read."""

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote

from sqlalchemy.orm import Session

from api.errors import HTTPError
from api.uploads import display_path
from ingest.scan import locate
from kb.errors import NotFoundError
from kb.records import Document, KnowledgeBase, Source
from kb.storage.bases import list_sources
from kb.storage.blobs import Blobs
from kb.storage.database import Database
from kb.storage.documents import find_document, known_files

PIECE_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class Content:
    """An open file and the name to save it under."""

    file: BinaryIO
    name: str
    size_bytes: int

    def headers(self) -> dict[str, str]:
        """Return headers that make a browser save the file and never show it."""
        return {
            "content-disposition": f"attachment; filename*=UTF-8''{quote(self.name, safe='')}",
            "content-length": str(self.size_bytes),
            "content-security-policy": "default-src 'none'; sandbox",
        }


def open_content(database: Database, blobs: Blobs, base: KnowledgeBase, document: str) -> Content:
    """Open the bytes of a document by its id.

    An upload's are in its blob. A folder's file is read in place, and only if it still holds the
    bytes that were ingested: it may have been changed, or replaced by a link to somewhere else.

    Raises:
        NotFoundError: no such document, or its bytes are gone.
        HTTPError: 409, the file in the folder is another one now.
    """
    with database.read() as session:
        found = find_document(session, base, document)
        source = next(s for s in list_sources(session, base.id) if s.id == found.source_id)
        sha256 = found.content_hash or _failed_hash(session, found)
    if sha256 is None:
        raise NotFoundError(f"the bytes of {found.name!r} could never be read")
    try:
        file = _path(blobs, source, found, sha256).open("rb")
    except OSError as exc:
        raise NotFoundError(f"the file of {found.name!r} is gone or cannot be read") from exc
    if source.kind == "folder" and hashlib.file_digest(file, "sha256").hexdigest() != sha256:
        file.close()
        raise HTTPError(
            409,
            "DocumentChangedError",
            f"the file of {found.name!r} has changed since it was read; ingest its folder again",
        )
    file.seek(0)
    name = display_path(found.path).rsplit("/", 1)[-1] or "document"
    return Content(file=file, name=name, size_bytes=os.fstat(file.fileno()).st_size)


def pieces(file: BinaryIO) -> Iterator[bytes]:
    """Yield a file's bytes and close it."""
    with file:
        while piece := file.read(PIECE_BYTES):
            yield piece


def _failed_hash(session: Session, document: Document) -> str | None:
    known = known_files(session, document.source_id)
    return next((file.failed_hash for file in known if file.document_id == document.id), None)


def _path(blobs: Blobs, source: Source, document: Document, sha256: str) -> Path:
    # Neither part of a folder's path comes from a client: both were found on this disk.
    if source.kind == "upload":
        return blobs.path(sha256)
    return locate(Path(source.root), document.path) or Path(source.root, document.path)
