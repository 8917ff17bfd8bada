"""Parse untrusted files in a child process that is killed when it costs too much.

The child (`ingest/parser_child.py`) is started when first needed and kept, since its imports
take seconds; the time limit of a file begins when its loader is imported, and anew with each
part of a page that OCR reads. It is replaced after it was killed, died, or has grown. Nothing
but JSON comes back from it.
"""

import hashlib
import json
import logging
import os
import selectors
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any, Self

import psutil

import ingest
from ingest.loaders import extension, loader_version
from ingest.loaders.base import ParseLimits
from ingest.loaders.libreoffice import NEW_FORMATS, convert
from ingest.parser_child import MEGABYTE, read_file, write_message
from kb.errors import CancelledError, CorruptFileError, LimitExceededError, LoadError
from kb.records import Heading, LoadedDocument

__all__ = ["ParseLimits", "Parser"]

logger = logging.getLogger(__name__)

_IMPORT_TIMEOUT_S = 180.0  # a cold disk and a busy machine; usually 0.2 to 5 s
_POLL_S = 0.05  # how often time and memory are looked at
_CHUNK_BYTES = MEGABYTE
_ANSWER_BYTES_PER_CHAR = 6  # at most, as JSON
# A child that holds on to more than this share of its memory limit makes room for a new one.
_KEPT_MEMORY_SHARE = 0.5
# The child gets no proxies, keys or settings.
_KEPT_VARIABLES = ("PATH", "HOME", "LANG", "LC_ALL", "LC_CTYPE", "TMPDIR", "LD_LIBRARY_PATH")
_SET_VARIABLES = {
    "DO_NOT_TRACK": "1",
    "SCARF_NO_ANALYTICS": "true",
    "UNSTRUCTURED_DISABLE_NOTICE": "1",
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}


class _ChildGoneError(Exception):
    """The child ended before it took the request."""


class Parser:
    """Loads files through one warm child process.

    Threads may share it; a lock lets one file through at a time. Use it in a ``with`` block or
    call `close`.
    """

    def __init__(self, limits: ParseLimits) -> None:
        self._limits = limits
        self._lock = threading.Lock()  # held from request to answer; guards `_child`
        self._converting = threading.Lock()  # held while LibreOffice runs
        self._child: subprocess.Popen[bytes] | None = None
        self._is_closing = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def load(self, path: Path, name: str) -> LoadedDocument:
        """Read the text of one file.

        Args:
            path: where its bytes are.
            name: what its owner calls it; gives the format by its extension.

        Returns:
            The document, whose text is blank if there is nothing in it. Its hash is that of
            the very bytes that were parsed, read once.

        Raises:
            LoadError: the file cannot be read; the message is for its owner.
            CancelledError: `close` was called meanwhile.
        """
        if extension(name) in NEW_FORMATS:
            return self._load_converted(path, name)
        request = {"path": str(path.absolute()), "name": name, "limits": asdict(self._limits)}
        with self._lock:
            try:
                answer = self._ask(request)
            except LoadError:
                self._stop_if_closing()
                raise
            self._stop_if_closing()
        if "error" in answer:
            if "trace" in answer:
                logger.debug("parsing a %s file failed:\n%s", path.suffix, answer["trace"])
            raise _load_error(answer["error"])
        return _document(answer["document"], name)

    def close(self) -> None:
        """End the child, at once: a file that it is parsing ends in `CancelledError`.

        A later `load` starts another.
        """
        self._is_closing = True
        child = self._child
        if child is not None:
            child.kill()  # before the lock, which a slow file may hold for minutes
        with self._converting, self._lock:
            self._is_closing = False
            self._end_child()

    def _load_converted(self, path: Path, name: str) -> LoadedDocument:
        """Read an old Office document, after LibreOffice made a new one of it."""
        suffix = extension(name)
        data = read_file(str(path.absolute()), self._limits)
        new_name = f"document.{NEW_FORMATS[suffix][0]}"
        with TemporaryDirectory(prefix="kb-office-") as folder:
            with self._converting:
                converted = convert(
                    data, suffix, self._limits, should_stop=lambda: self._is_closing
                )
            new_path = Path(folder, new_name)
            new_path.write_bytes(converted)
            document = self.load(new_path, new_name)
        return replace(
            document,
            loader=loader_version(name),
            content_hash=hashlib.sha256(data).hexdigest(),
            size_bytes=len(data),
        )

    def _stop_if_closing(self) -> None:
        """Whatever a child that `close` killed seems to say of its file is not true."""
        if self._is_closing:
            raise CancelledError("stopped while a file was parsed")

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        try:
            try:
                answer = self._exchange(request)
            except _ChildGoneError:  # killed from outside while it waited: not this file's fault
                self._end_child()
                answer = self._exchange(request)
        except _ChildGoneError as exc:
            self._end_child()
            raise LoadError("the file cannot be read: the parser does not start") from exc
        except BaseException:  # also Ctrl-C: an answer that nobody read must not stay in the pipe
            self._end_child()
            raise
        self._end_child_if_grown()
        return answer

    def _exchange(self, request: dict[str, Any]) -> dict[str, Any]:
        child = self._running_child()
        answers = self._answers(child)
        try:
            assert child.stdin is not None
            write_message(child.stdin, request)
            first = next(answers)
        except (BrokenPipeError, StopIteration) as exc:
            raise _ChildGoneError from exc
        if "error" in first:
            return first
        try:
            return next(answers)
        except StopIteration as exc:
            raise CorruptFileError(
                "reading the file made the parser crash; the file may be damaged"
            ) from exc

    def _answers(self, child: subprocess.Popen[bytes]) -> Iterator[dict[str, Any]]:
        """Yield the child's messages until it closes its end.

        Raises:
            LimitExceededError: it takes too long or has grown too large.
        """
        assert child.stdout is not None
        max_bytes = _ANSWER_BYTES_PER_CHAR * self._limits.max_text_chars + 64 * MEGABYTE
        process = psutil.Process(child.pid)
        buffer = bytearray()
        deadline, has_started = time.monotonic() + _IMPORT_TIMEOUT_S, False
        with selectors.DefaultSelector() as selector:
            selector.register(child.stdout, selectors.EVENT_READ)
            while True:
                if selector.select(_POLL_S):
                    piece = os.read(child.stdout.fileno(), _CHUNK_BYTES)
                    if not piece:
                        return
                    buffer += piece
                    while (message := _take_message(buffer, max_bytes)) is not None:
                        if not has_started or "part" in message:
                            has_started = True
                            deadline = time.monotonic() + self._limits.timeout_s
                        if "part" not in message:
                            yield message
                self._check(process, deadline)

    def _check(self, process: psutil.Process, deadline: float) -> None:
        if time.monotonic() > deadline:
            raise LimitExceededError(
                f"reading the file, or a part of a page by OCR, takes longer than "
                f"{self._limits.timeout_s:g} seconds; "
                "split it or raise parse_timeout_s"
            )
        if _resident_bytes(process) > self._limits.memory_mb * MEGABYTE:
            raise LimitExceededError(
                f"reading the file needs more than {self._limits.memory_mb} MB of memory; "
                "split it or raise parse_memory_mb"
            )

    def _running_child(self) -> subprocess.Popen[bytes]:
        if self._child is None or self._child.poll() is not None:
            self._end_child()
            self._child = subprocess.Popen(
                # -P: a folder full of somebody's files may be the current one, and must not be
                # where modules are imported from.
                [sys.executable, "-P", "-m", "ingest.parser_child"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=_child_environment(os.environ),
                cwd=os.sep,
            )
        return self._child

    def _end_child_if_grown(self) -> None:
        if self._child is not None:
            resident = _resident_bytes(psutil.Process(self._child.pid))
            if resident > _KEPT_MEMORY_SHARE * self._limits.memory_mb * MEGABYTE:
                self._end_child()

    def _end_child(self) -> None:
        if self._child is None:
            return
        child, self._child = self._child, None
        child.kill()
        child.wait()
        for stream in (child.stdin, child.stdout):
            if stream is not None:
                try:
                    stream.close()
                except BrokenPipeError:  # the rest of a request that it did not read
                    continue


def _child_environment(ours: Mapping[str, str]) -> dict[str, str]:
    kept = {name: ours[name] for name in _KEPT_VARIABLES if name in ours}
    # The package may not be installed, only be importable from where the parent was started.
    (package,) = ingest.__path__
    return kept | _SET_VARIABLES | {"PYTHONPATH": str(Path(package).absolute().parent)}


def _resident_bytes(process: psutil.Process) -> int:
    try:
        resident: int = process.memory_info().rss
    except psutil.NoSuchProcess:  # its end is noticed where its messages are read
        return 0
    return resident


def _take_message(buffer: bytearray, max_bytes: int) -> dict[str, Any] | None:
    """Remove the first message from `buffer` and return it; None while it is incomplete."""
    if len(buffer) < 4:
        return None
    (length,) = struct.unpack_from(">I", buffer)
    if length > max_bytes:
        raise LimitExceededError("the file holds too much text; split it")
    if len(buffer) < 4 + length:
        return None
    message: dict[str, Any] = json.loads(buffer[4 : 4 + length])
    del buffer[: 4 + length]
    return message


def _document(document: dict[str, Any], name: str) -> LoadedDocument:
    return LoadedDocument(
        text=document["text"],
        headings=tuple(Heading(*heading) for heading in document["headings"]),
        pages=tuple(document["pages"]),
        encoding=document["encoding"],
        encoding_guessed=document["encoding_guessed"],
        loader=loader_version(name),
        content_hash=document["content_hash"],
        size_bytes=document["size_bytes"],
        notes=tuple(document["notes"]),
    )


def _load_error(error: dict[str, str]) -> LoadError:
    known: dict[str, type[LoadError]] = {cls.__name__: cls for cls in LoadError.__subclasses__()}
    return known.get(error["type"], LoadError)(error["message"])
