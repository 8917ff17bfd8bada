"""One parser child: a process that reads one file at a time, and is killed when it costs too much.

The program is `ingest/parser_child.py`. It is started when first needed and kept, since its
imports take seconds; the time limit of a file begins when its loader is imported, and anew with
each part of a page that OCR reads. It is replaced after it was killed, died, or has grown.
Nothing but JSON comes back from it.
"""

import json
import os
import selectors
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil

import ingest
from ingest.loaders.base import ParseLimits
from ingest.parser_child import MEGABYTE, write_message
from kb.errors import CancelledError, CorruptFileError, LimitExceededError, LoadError

_IMPORT_TIMEOUT_S = 180.0  # a cold disk and a busy machine; usually 0.2 to 5 s
_POLL_S = 0.05  # how often time, memory and `should_stop` are looked at
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


class ParserProcess:
    """A child process and the pipe to it; one thread uses it at a time."""

    def __init__(self, limits: ParseLimits) -> None:
        self._limits = limits
        self._child: subprocess.Popen[bytes] | None = None

    def ask(self, path: Path, name: str, should_stop: Callable[[], bool]) -> dict[str, Any]:
        """Have one file read; return the child's last message.

        Raises:
            LoadError: the child broke a limit, crashed on the file, or does not start.
            CancelledError: `should_stop` said so.
        """
        request = {"path": str(path.absolute()), "name": name, "limits": asdict(self._limits)}
        try:
            try:
                answer = self._exchange(request, should_stop)
            except _ChildGoneError:  # killed from outside while it waited: not this file's fault
                self.close()
                answer = self._exchange(request, should_stop)
        except _ChildGoneError as exc:
            self.close()
            raise LoadError("the file cannot be read: the parser does not start") from exc
        except BaseException:  # also Ctrl-C: an answer that nobody read must not stay in the pipe
            self.close()
            raise
        self._end_if_grown()
        return answer

    def close(self) -> None:
        """End the child and let go of its pipes; `ask` starts another."""
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

    def _exchange(self, request: dict[str, Any], should_stop: Callable[[], bool]) -> dict[str, Any]:
        child = self._running_child()
        answers = self._answers(child, should_stop)
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

    def _answers(
        self, child: subprocess.Popen[bytes], should_stop: Callable[[], bool]
    ) -> Iterator[dict[str, Any]]:
        """Yield the child's messages until it closes its end.

        Raises:
            LimitExceededError: it takes too long or has grown too large.
            CancelledError: `should_stop` said so.
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
                if should_stop():
                    raise CancelledError("stopped while a file was parsed")
                self._check(process, deadline)

    def _check(self, process: psutil.Process, deadline: float) -> None:
        if time.monotonic() > deadline:
            raise LimitExceededError(
                "reading the file, or a part of a page by OCR, takes longer than "
                f"{self._limits.timeout_s:g} seconds; split it or raise parse_timeout_s"
            )
        if _resident_bytes(process) > self._limits.memory_mb * MEGABYTE:
            raise LimitExceededError(
                f"reading the file needs more than {self._limits.memory_mb} MB of memory; "
                "split it or raise parse_memory_mb"
            )

    def _running_child(self) -> subprocess.Popen[bytes]:
        if self._child is None or self._child.poll() is not None:
            self.close()
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

    def _end_if_grown(self) -> None:
        if self._child is not None:
            resident = _resident_bytes(psutil.Process(self._child.pid))
            if resident > _KEPT_MEMORY_SHARE * self._limits.memory_mb * MEGABYTE:
                self.close()


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
