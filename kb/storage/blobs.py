"""Uploaded bytes, named by their content: ``$KB_HOME/blobs/<sha256>``.

Nothing a client sends becomes part of a path here: a blob's name is the hash of its bytes, a
staged file's name is random. Bytes are first staged, then adopted by the transaction that
records who uses them, so that a sweep (which holds the same write lock) never removes a blob
whose upload is just being recorded.

    with blobs.stage() as staged:       # a temporary file in the same folder
        staged.write(b"...")
        staged.finish()                 # closed, hashed
        blobs.sync([staged])            # on the disk for good
        with database.write() as session:
            blobs.adopt([staged])       # renamed to <sha256>
            create_job(session, ...)
"""

import contextlib
import errno
import hashlib
import os
import re
import secrets
import time
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from kb.errors import StorageError
from kb.storage.durable import flush_to_disk
from kb.storage.jobs import RESUMABLE_STATES
from kb.storage.tables import DocumentRow, JobFileRow, JobRow, SourceRow

_SHA256 = re.compile(r"[0-9a-f]{64}")
_STAGED_PREFIX = "incoming-"
# An upload that takes longer than this is taken for dead, and its staged files are removed.
STAGED_LIFETIME_S = 24 * 3600


class StagedBlob:
    """A file being received. Leaving the `with` block removes what was not adopted."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / f"{_STAGED_PREFIX}{secrets.token_hex(16)}"
        self.size_bytes = 0
        self.sha256 = ""  # set by `finish`
        self._hash = hashlib.sha256()
        self._file = _open_new(self.path)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.discard()

    def write(self, piece: bytes) -> None:
        """Append `piece`.

        Raises:
            StorageError: the disk is full or the folder cannot be written.
        """
        try:
            self._file.write(piece)
        except OSError as exc:
            raise _storage_error(self.path.parent, exc) from exc
        self._hash.update(piece)
        self.size_bytes += len(piece)

    def finish(self) -> str:
        """Close the file and return the SHA-256 of its bytes in hex."""
        try:
            self._file.close()
        except OSError as exc:
            raise _storage_error(self.path.parent, exc) from exc
        self.sha256 = self._hash.hexdigest()
        return self.sha256

    def discard(self) -> None:
        """Remove the staged file; does nothing once it is adopted."""
        self._file.close()
        self.path.unlink(missing_ok=True)


class Blobs:
    """The folder of uploaded bytes of one data folder. Safe to share between threads."""

    def __init__(self, home: Path) -> None:
        self.folder = home / "blobs"

    def stage(self) -> StagedBlob:
        """Begin to receive a file.

        Raises:
            StorageError: the folder cannot be written.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as exc:
            raise _storage_error(self.folder, exc) from exc
        return StagedBlob(self.folder)

    def sync(self, staged: Iterable[StagedBlob]) -> None:
        """Put finished files on the disk for good; before `adopt`, and outside its transaction.

        All at the end: by then most are on the disk already, which for many small files is far
        faster than syncing each when it ends.
        """
        try:
            for blob in staged:
                flush_to_disk(blob.path)
        except OSError as exc:
            raise _storage_error(self.folder, exc) from exc

    def adopt(self, staged: Iterable[StagedBlob]) -> None:
        """Give synced files their final names; call inside the transaction that uses them."""
        try:
            for blob in staged:
                os.replace(blob.path, self.path(blob.sha256))
            flush_to_disk(self.folder)
        except OSError as exc:
            raise _storage_error(self.folder, exc) from exc

    def path(self, sha256: str) -> Path:
        """Return where the bytes with this hash are, or would be.

        Raises:
            ValueError: `sha256` is not 64 hex digits, and so is no name of ours.
        """
        if not _SHA256.fullmatch(sha256):
            raise ValueError(f"{sha256!r} is not a SHA-256")
        return self.folder / sha256

    def has(self, sha256: str | None) -> bool:
        """Tell whether the bytes with this hash are here; False for what is no hash."""
        return bool(sha256 and _SHA256.fullmatch(sha256) and self.path(sha256).is_file())

    def drop_unused(self, session: Session, candidates: Iterable[str] | None = None) -> int:
        """Remove blobs that no uploaded document and no unfinished job uses.

        Args:
            session: a write session of its own: the removal of files cannot be rolled back, so
                the change that freed them must be committed before.
            candidates: the hashes to look at; None looks at the whole folder.

        Returns:
            How many files were removed.
        """
        removed = 0
        for sha256 in self.unused(session, candidates):
            path = self.path(sha256)
            if path.exists():
                path.unlink(missing_ok=True)
                removed += 1
        return removed

    def unused(self, session: Session, candidates: Iterable[str] | None = None) -> set[str]:
        """Return which of these hashes (of all files, for None) nobody uses."""
        hashes = self._stored() if candidates is None else set(candidates)
        return hashes - _used(session, hashes)

    def drop_abandoned(self, now: float | None = None) -> int:
        """Remove staged files of uploads that died; returns how many."""
        abandoned = self.abandoned(now)
        for path in abandoned:
            path.unlink(missing_ok=True)
        return len(abandoned)

    def abandoned(self, now: float | None = None) -> list[Path]:
        """Return staged files of uploads that died."""
        oldest = (time.time() if now is None else now) - STAGED_LIFETIME_S
        found = []
        for path in self.folder.glob(f"{_STAGED_PREFIX}*"):
            with contextlib.suppress(FileNotFoundError):  # its upload ended just now
                if path.stat().st_mtime < oldest:
                    found.append(path)
        return found

    def _stored(self) -> set[str]:
        if not self.folder.is_dir():
            return set()
        return {entry.name for entry in os.scandir(self.folder) if _SHA256.fullmatch(entry.name)}


def _used(session: Session, hashes: set[str]) -> set[str]:
    if len(hashes) > 500:  # below SQLite's limit on bound values, and a scan is cheaper anyway
        wanted_documents = wanted_files = None
    else:
        wanted_documents = or_(
            DocumentRow.content_hash.in_(hashes), DocumentRow.failed_hash.in_(hashes)
        )
        wanted_files = JobFileRow.blob.in_(hashes)
    documents = (
        select(DocumentRow.content_hash, DocumentRow.failed_hash)
        .join(SourceRow, SourceRow.id == DocumentRow.source_id)
        .where(SourceRow.kind == "upload")
    )
    files = (
        select(JobFileRow.blob)
        .join(JobRow, JobRow.id == JobFileRow.job_id)
        .where(JobRow.state.in_(RESUMABLE_STATES))
    )
    if wanted_documents is not None and wanted_files is not None:
        documents, files = documents.where(wanted_documents), files.where(wanted_files)
    used = {value for row in session.execute(documents) for value in row if value}
    return used | set(session.scalars(files))


def _open_new(path: Path) -> BinaryIO:
    """Open a new file that only this user can read; never follows or replaces a file."""
    try:
        return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")
    except OSError as exc:
        raise _storage_error(path.parent, exc) from exc


def _storage_error(folder: Path, exc: OSError) -> StorageError:
    if exc.errno in (errno.ENOSPC, errno.EDQUOT):
        return StorageError(
            f"the disk is full at {str(folder)!r}; nothing stored so far is lost; "
            "free some space and upload again"
        )
    return StorageError(f"cannot write to {str(folder)!r} ({exc.strerror})")
