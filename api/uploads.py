"""Receive a multipart upload straight into blobs, as it arrives.

Nothing of a file is held in memory and nothing is spooled outside the data folder. What a client
calls a file is display text: `display_path` makes it fit to be shown and compared, and it never
becomes part of a path on disk.

Reference: RFC 7578 (multipart/form-data); browsers put a dropped folder's relative path into
`filename`, in UTF-8.
"""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from api.errors import HTTPError
from kb.errors import InvalidInputError
from kb.storage.blobs import Blobs, StagedBlob
from kb.storage.jobs import JobFile

FIELD = "files"
MAX_FILES = 20_000
MAX_PATH_CHARS = 1000
MAX_HEADER_BYTES = 16 * 1024

# Marks, overrides and isolates of writing direction can make a name read as another one.
_DIRECTION = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_DRIVE = re.compile(r"[A-Za-z]:(?=/|$)")


def display_path(name: str) -> str:
    """Return a client's file name as a relative path for display, in NFC with "/" separators.

    Control and direction characters, drive letters, empty, "." and ".." segments are left out:
    ``"..\\\\..\\\\C:\\\\a/./b.txt"`` becomes ``"a/b.txt"``. "" when nothing is left.

    Raises:
        InvalidInputError: more than `MAX_PATH_CHARS` characters remain.
    """
    clean = "".join(c for c in unicodedata.normalize("NFC", name) if not _is_invisible(c))
    segments = (_DRIVE.sub("", part).strip() for part in re.split(r"[/\\]", clean))
    path = "/".join(part for part in segments if part not in ("", ".", ".."))
    if len(path) > MAX_PATH_CHARS:
        raise InvalidInputError(FIELD, f"a file name has more than {MAX_PATH_CHARS} characters")
    return path


class UploadReader:
    """A push parser: `write` the body's pieces, then `finish`; `discard` at the end in any case.

    After `finish`, `staged` holds the received blobs and `files` their display paths, in order.
    """

    def __init__(self, content_type: str, blobs: Blobs) -> None:
        self.staged: list[StagedBlob] = []
        self.files: list[JobFile] = []
        self._blobs = blobs
        self._hashes: dict[str, str] = {}  # by display path
        self._header_name = b""
        self._header_value = b""
        self._headers: dict[bytes, bytes] = {}
        self._current: StagedBlob | None = None
        self._current_path = ""
        self._has_ended = False
        boundary = _boundary(content_type)
        try:
            self._parser = MultipartParser(
                boundary, self._callbacks(), max_header_size=MAX_HEADER_BYTES
            )
        except FormParserError as exc:  # a boundary beyond all measure
            raise _malformed() from exc

    def write(self, piece: bytes) -> None:
        """Take the next piece of the body.

        Raises:
            HTTPError: the body is not multipart/form-data.
            InvalidInputError: a field or file name cannot be used, or there are too many files.
            StorageError: the data folder is full or cannot be written.
        """
        try:
            self._parser.write(piece)
        except FormParserError as exc:
            raise _malformed() from exc

    def finish(self) -> None:
        """Check that the body was complete and held files; the errors are those of `write`."""
        try:
            self._parser.finalize()
        except FormParserError as exc:
            raise _malformed() from exc
        if not self._has_ended:
            raise HTTPError(400, "BadRequestError", "the upload ended before it was complete")
        if not self.files:
            raise InvalidInputError(FIELD, "no file was sent; send each as a field of this name")

    def discard(self) -> None:
        """Remove what was received and not adopted."""
        for blob in self.staged:
            blob.discard()

    def _callbacks(self) -> Any:
        return {
            "on_part_begin": self._begin_part,
            "on_header_field": self._add_header_name,
            "on_header_value": self._add_header_value,
            "on_header_end": self._end_header,
            "on_headers_finished": self._begin_file,
            "on_part_data": self._add_data,
            "on_part_end": self._end_file,
            "on_end": self._end,
        }

    def _begin_part(self) -> None:
        self._headers = {}

    def _add_header_name(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]

    def _add_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]

    def _end_header(self) -> None:
        self._headers[self._header_name.lower()] = self._header_value
        self._header_name = self._header_value = b""

    def _begin_file(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition"))
        _check_field(options)
        self._current = None
        name = options[b"filename"]
        if not name:
            return  # a file field in which the user chose nothing
        if len(self.files) >= MAX_FILES:
            raise InvalidInputError(FIELD, f"at most {MAX_FILES} files at once")
        self._current_path = display_path(_unescaped(_decode_name(name))) or "unnamed"
        self._current = self._blobs.stage()
        self.staged.append(self._current)

    def _add_data(self, data: bytes, start: int, end: int) -> None:
        if self._current is not None:
            self._current.write(data[start:end])

    def _end_file(self) -> None:
        blob, path = self._current, self._current_path
        if blob is None:
            return
        sha256 = blob.finish()
        if path not in self._hashes:
            self._hashes[path] = sha256
            self.files.append(JobFile(path=path, blob=sha256, size_bytes=blob.size_bytes))
        elif self._hashes[path] != sha256:
            raise InvalidInputError(
                FIELD,
                f"two different files are called {path!r}; send each with its folder in the name",
            )

    def _end(self) -> None:
        self._has_ended = True


def _boundary(content_type: str) -> bytes:
    kind, options = parse_options_header(content_type)
    boundary = options.get(b"boundary", b"")
    if kind != b"multipart/form-data" or not boundary:
        raise HTTPError(
            415,
            "UnsupportedMediaTypeError",
            f"send files as multipart/form-data, each as a field named {FIELD!r}",
        )
    return boundary


def _check_field(options: Mapping[bytes, bytes]) -> None:
    if options.get(b"name") != FIELD.encode() or b"filename" not in options:
        raise InvalidInputError(
            FIELD,
            f"every part must be a file in a field named {FIELD!r}; options go into the query",
        )


def _unescaped(name: str) -> str:
    """Undo what browsers do to a file name in multipart: they escape these three and no more."""
    return name.replace("%22", '"').replace("%0A", "\n").replace("%0D", "\r")


def _decode_name(name: bytes) -> str:
    """Decode a file name: UTF-8 as the standard says, else as Chinese systems write it."""
    for encoding in ("utf-8", "gb18030"):
        try:
            return name.decode(encoding)
        except UnicodeDecodeError:
            continue
    return name.decode("utf-8", "replace")


def _is_invisible(character: str) -> bool:
    return character in _DIRECTION or unicodedata.category(character) in {"Cc", "Cs", "Zl", "Zp"}


def _malformed() -> HTTPError:
    return HTTPError(400, "BadRequestError", "the body is not well-formed multipart/form-data")


def put_below(root: str, files: Sequence[JobFile]) -> list[JobFile]:
    """Return `files` with paths below `root`; browsers name the dropped folder in each already."""
    if not root or all(file.path.startswith(f"{root}/") for file in files):
        return list(files)
    return [replace(file, path=f"{root}/{file.path}") for file in files]
