"""Parse untrusted files in a child process that can be killed."""

import json
import os
import selectors
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil

import ingest
from ingest.loaders import loader_version
from ingest.loaders.base import ParseLimits
from kb import errors
from kb.errors import CorruptFileError, LimitExceededError, LoadError
from kb.records import Heading, LoadedDocument

__all__ = ["ParseLimits", "Parser"]

IMPORT_TIMEOUT_S = 120.0
POLL_S = 0.05
MEGABYTE = 1 << 20
_KEPT_ENVIRONMENT = ("PATH", "HOME", "LANG", "LC_ALL", "LC_CTYPE", "TMPDIR", "LD_LIBRARY_PATH")


class Parser:
    """Loads files through one warm child process; replaced after it had to be killed."""

    def __init__(self, limits: ParseLimits) -> None:
        self.limits = limits
        self._lock = threading.Lock()  # one request at a time
        self._child: subprocess.Popen[bytes] | None = None

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
        request = {"path": str(path.absolute()), "name": name, "limits": asdict(self.limits)}
        with self._lock:
            try:
                answer = self._ask(request)
            except BaseException:
                self._kill()
                raise
        if "error" in answer:
            raise _error(answer["error"])
        document = answer["document"]
        return LoadedDocument(
            text=document["text"],
            headings=tuple(Heading(*heading) for heading in document["headings"]),
            pages=tuple(document["pages"]),
            encoding=document["encoding"],
            encoding_guessed=document["encoding_guessed"],
            loader=loader_version(name),
            content_hash=document["content_hash"],
            size_bytes=document["size_bytes"],
        )

    def close(self) -> None:
        with self._lock:
            self._kill()

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        child = self._start()
        assert child.stdin is not None
        body = json.dumps(request).encode()
        child.stdin.write(struct.pack(">I", len(body)) + body)
        child.stdin.flush()
        answers = self._answers(child)
        answer = next(answers)
        return answer if "error" in answer else next(answers)

    def _answers(self, child: subprocess.Popen[bytes]) -> Iterator[dict[str, Any]]:
        assert child.stdout is not None
        process = psutil.Process(child.pid)
        buffer = bytearray()
        deadline = time.monotonic() + IMPORT_TIMEOUT_S
        with selectors.DefaultSelector() as selector:
            selector.register(child.stdout, selectors.EVENT_READ)
            while True:
                if selector.select(POLL_S):
                    piece = os.read(child.stdout.fileno(), MEGABYTE)
                    if not piece:
                        raise CorruptFileError("the file made the parser crash; it may be damaged")
                    buffer += piece
                    while len(buffer) >= 4:
                        (length,) = struct.unpack_from(">I", buffer)
                        if len(buffer) < 4 + length:
                            break
                        message = json.loads(bytes(buffer[4 : 4 + length]))
                        del buffer[: 4 + length]
                        deadline = time.monotonic() + self.limits.timeout_s
                        yield message
                    continue
                if time.monotonic() > deadline:
                    raise LimitExceededError(
                        f"reading the file took longer than {self.limits.timeout_s:g} seconds"
                    )
                if process.memory_info().rss > self.limits.memory_mb * MEGABYTE:
                    raise LimitExceededError(
                        f"reading the file needed more than {self.limits.memory_mb} MB of memory"
                    )

    def _start(self) -> subprocess.Popen[bytes]:
        if self._child is not None and self._child.poll() is None:
            return self._child
        self._kill()
        environment = {key: os.environ[key] for key in _KEPT_ENVIRONMENT if key in os.environ}
        environment["PYTHONPATH"] = str(Path(ingest.__file__ or "").parent.parent)
        self._child = subprocess.Popen(
            [sys.executable, "-P", "-m", "ingest.parser_child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            cwd="/",
        )
        return self._child

    def _kill(self) -> None:
        if self._child is None:
            return
        child, self._child = self._child, None
        child.kill()
        child.wait()
        for stream in (child.stdin, child.stdout):
            if stream is not None:
                stream.close()


def _error(error: dict[str, str]) -> LoadError:
    cls = getattr(errors, error["type"], LoadError)
    if not (isinstance(cls, type) and issubclass(cls, LoadError)):
        cls = LoadError
    return cls(error["message"])
