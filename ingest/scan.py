"""What is in a folder: files with their paths, sizes and times. Reads names, never contents.

Left out without a word: what `ingest.ignore` says, pipes, sockets and devices, data folders of kb
itself, and links to folders inside the root, whose files are found where they are. Links to files
inside the root are read as files of their own. Nothing outside the root is ever reached: a link
that leads there, like one that leads nowhere, is a failure with its reason.
"""

import errno
import os
import stat
import time
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ingest.ignore import IGNORE_NAME, Rules, extend, is_left_out
from kb.errors import InvalidInputError, StorageError
from kb.records import FailedFile
from kb.storage.database import DATABASE_NAME

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
    """A folder's files by path, and what cannot be opened: files, and folders that end in "/"."""

    files: tuple[FoundFile, ...]
    failed: tuple[FailedFile, ...]


@dataclass(frozen=True, slots=True)
class Listing:
    """One folder of a walk: its path from the root with "/" at its end ("" for the root).

    `entries` are its files and links by name; `error` says why they could not be listed.
    """

    path: str
    location: Path
    entries: tuple[Path, ...]
    error: str | None = None


def scan(root: Path, start: Path) -> Scan:
    """List the files below `start`, which is `root`, a folder in it, or one file in it.

    A start that is missing has no files. A folder that cannot be listed is a failure; its files are
    unknown, not gone.

    Raises:
        InvalidInputError: `start` itself is left out, or a `.kbignore` cannot be read.
        StorageError: `start` cannot be listed.
    """
    real_root = root.resolve()
    files: list[FoundFile] = []
    failed: list[FailedFile] = []
    taken: set[str] = set()
    for listing in walk(root, start):
        if listing.error:
            failed.append(FailedFile(_shown(listing.path), listing.error))
        for entry in listing.entries:
            path = listing.path + _nfc(entry.name)
            if not _is_utf8(path):
                reason = "the file name is not valid UTF-8; rename the file"
                failed.append(FailedFile(_shown(path), reason))
                continue
            if path in taken:
                reason = "another file has this name in another Unicode form; rename one of them"
                failed.append(FailedFile(f"{path} (2)", reason))
                continue
            taken.add(path)
            try:
                found = _look(path, entry, real_root)
            except OSError as exc:
                failed.append(FailedFile(path, f"cannot be read: {exc.strerror}"))
                continue
            if isinstance(found, FailedFile):
                failed.append(found)
            elif found is not None:
                files.append(found)
    return Scan(
        files=tuple(sorted(files, key=lambda file: file.path)),
        failed=tuple(sorted(failed, key=lambda file: file.path)),
    )


def walk(root: Path, start: Path) -> Iterator[Listing]:
    """Yield `start` and the folders below it that are not left out, none of them through a link.

    Raises:
        As `scan`.
    """
    if not is_there(start):
        return
    prefix, folder = "", root
    rules: Rules = ()
    for name in start.relative_to(root).parts:
        rules = extend(rules, prefix, folder)
        folder = folder / name
        is_folder = folder.is_dir()
        if is_left_out(prefix + _nfc(name), rules, is_folder=is_folder):
            raise InvalidInputError(
                str(start),
                f"is left out, since {folder.name!r} is hidden, temporary or named in a .kbignore "
                f'of {str(root)!r}; bring it back there with a line that begins with "!"',
            )
        if is_folder:
            prefix += _nfc(name) + "/"
    if not start.is_dir():
        if start == root or not start.is_file():
            raise InvalidInputError(
                str(start), "is not a folder" if start == root else "is neither a file nor a folder"
            )
        yield Listing(prefix, start.parent, (start,))
        return
    pending = [(prefix, start, rules)]
    while pending:
        prefix, folder, rules = pending.pop()
        try:
            with os.scandir(folder) as opened:
                entries = sorted(opened, key=lambda entry: entry.name)
        except OSError as exc:
            if folder == start:
                raise StorageError(
                    f"cannot list the folder {str(start)!r} ({exc.strerror}); nothing was changed"
                ) from exc
            yield Listing(prefix, folder, (), f"the folder cannot be listed: {exc.strerror}")
            continue
        if any(entry.name == DATABASE_NAME for entry in entries):
            if folder == start:
                raise InvalidInputError(str(start), "is a data folder of kb itself, not documents")
            continue
        if any(entry.name == IGNORE_NAME for entry in entries):
            rules = extend(rules, prefix, folder)
        files: list[Path] = []
        for entry in entries:
            path = prefix + _nfc(entry.name)
            is_folder = _is_folder(entry)
            if is_left_out(path, rules, is_folder=is_folder):
                continue
            if is_folder:
                pending.append((path + "/", Path(entry.path), rules))
            else:
                files.append(Path(entry.path))
        yield Listing(prefix, folder, tuple(files))


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir(follow_symlinks=False)
    except OSError:
        return False  # looking at it as a file will say why


def is_there(place: Path) -> bool:
    """Tell whether there is a file or folder.

    Raises:
        StorageError: it cannot be known: a folder above it is closed, or a network disk is away.
    """
    try:
        return place.exists()
    except OSError as exc:
        raise StorageError(
            f"cannot look at {str(place)!r} ({exc.strerror}); nothing was changed"
        ) from exc


def _look(path: str, entry: Path, real_root: Path) -> FoundFile | FailedFile | None:
    """Return the file, why it is not read, or None where there is nothing to read.

    Raises:
        OSError: it cannot be looked at.
    """
    status = entry.lstat()
    if stat.S_ISLNK(status.st_mode):
        try:
            status = entry.stat()
        except FileNotFoundError:
            return FailedFile(path, "a link to a file that is gone")
        except OSError as exc:
            if exc.errno == errno.ELOOP:
                return FailedFile(path, "a link that leads back to itself")
            raise
        if not entry.resolve().is_relative_to(real_root):
            return FailedFile(
                path,
                "a link that leaves the folder is not followed; ingest what it names by its own "
                "path, or leave it out with a .kbignore",
            )
    return _found(path, entry, status)


def _found(path: str, location: Path, status: os.stat_result) -> FoundFile | None:
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


def _nfc(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def _is_utf8(path: str) -> bool:
    try:
        path.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _shown(path: str) -> str:
    return os.fsencode(path).decode("utf-8", "replace")


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
