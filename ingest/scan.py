"""What is in a folder: files with their paths, sizes and times. Reads names, never contents."""

import os
import stat
import time
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from kb.errors import StorageError
from kb.records import FailedFile

# Lock and temporary files of office programs and systems, by the start of their names.
_TEMPORARY_PREFIXES = ("~$", ".")
_TEMPORARY_NAMES = frozenset({"Thumbs.db", "desktop.ini"})
# A file changed this recently may change again within the same time stamp: its times prove
# nothing, so they are not remembered and the file is read again by the next sync.
_RACY_NS = 2_000_000_000


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A file on disk or an uploaded one.

    `path` is relative to the source, with "/" and in NFC; `location` is where the bytes are.
    `content_hash` is known beforehand only for uploads.
    """

    path: str
    location: Path
    size_bytes: int
    stat_key: str
    content_hash: str | None = None


@dataclass(frozen=True, slots=True)
class Scan:
    """A folder's files by path, and those that cannot even be named or opened."""

    files: tuple[FoundFile, ...]
    failed: tuple[FailedFile, ...]


def scan(root: Path, start: Path) -> Scan:
    """List the files below `start`, which is `root`, a folder in it, or one file in it.

    A start that is missing has no files.

    Hidden and temporary files and folders are left out. Symbolic links to files inside `root`
    are read; links that leave it are failures, and links to folders are not followed.

    Raises:
        StorageError: the folder cannot be listed.
    """
    real_root = root.resolve()
    files: list[FoundFile] = []
    failed: list[FailedFile] = []
    taken: set[str] = set()
    if not start.exists():
        return Scan((), ())
    entries = _walk(start) if start.is_dir() else [start]
    for entry in entries:
        try:
            path = unicodedata.normalize("NFC", entry.relative_to(root).as_posix())
            path.encode("utf-8")
        except UnicodeEncodeError:
            shown = os.fsencode(entry.relative_to(root)).decode("utf-8", "replace")
            failed.append(FailedFile(shown, "the file name is not valid UTF-8; rename the file"))
            continue
        if path in taken:
            reason = "another file has this name in another Unicode form; rename one of them"
            failed.append(FailedFile(f"{path} (2)", reason))
            continue
        taken.add(path)
        if entry.is_symlink() and not _leads_inside(entry, real_root):
            failed.append(FailedFile(path, "a link that leaves the folder is not followed"))
            continue
        try:
            found = found_file(path, entry)
        except OSError as exc:
            failed.append(FailedFile(path, f"cannot be read: {exc.strerror}"))
            continue
        if found is not None:
            files.append(found)
    return Scan(
        files=tuple(sorted(files, key=lambda file: file.path)),
        failed=tuple(sorted(failed, key=lambda file: file.path)),
    )


def found_file(path: str, location: Path) -> FoundFile | None:
    """Return the record of one file; None for pipes, sockets and devices."""
    status = location.stat()
    if not stat.S_ISREG(status.st_mode):
        return None
    return FoundFile(path, location, status.st_size, _key(status))


def stat_key(location: Path) -> str:
    """Return size, times and inode as text; equal keys mean equal bytes. "" proves nothing."""
    return _key(location.stat())


def _key(status: os.stat_result) -> str:
    if time.time_ns() - max(status.st_mtime_ns, status.st_ctime_ns) < _RACY_NS:
        return ""
    return f"{status.st_size}:{status.st_mtime_ns}:{status.st_ctime_ns}:{status.st_ino}"


def _leads_inside(link: Path, real_root: Path) -> bool:
    try:
        return link.resolve().is_relative_to(real_root)
    except (OSError, RuntimeError):  # Python 3.11 and 3.12 raise RuntimeError for a loop of links
        return False


def _walk(folder: Path) -> Iterator[Path]:
    def stop(error: OSError) -> None:
        # A folder that cannot be listed looks empty: pruning after that would lose documents.
        raise StorageError(
            f"cannot list the folder {str(error.filename)!r} ({error.strerror}); "
            "nothing was changed"
        ) from error

    for parent, folders, names in os.walk(folder, onerror=stop):
        folders[:] = sorted(name for name in folders if not _is_temporary(name))
        for name in names:
            if not _is_temporary(name):
                yield Path(parent, name)


def _is_temporary(name: str) -> bool:
    return name.startswith(_TEMPORARY_PREFIXES) or name in _TEMPORARY_NAMES


def locate(root: Path, path: str) -> Path | None:
    """Return where the file with this NFC path is; its name on disk may be in another form."""
    place = root / path
    if place.exists():
        return place
    place = root
    for part in path.split("/"):
        try:
            names = os.listdir(place)
        except OSError:
            return None
        found = [name for name in names if unicodedata.normalize("NFC", name) == part]
        if not found:
            return None
        place = place / found[0]
    return place
