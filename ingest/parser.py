"""Parse untrusted files in child processes, a few at a time.

    sync ──> Parser (the pool) ──> ParserProcess ──pipe──> parser_child.py ──> a loader

Each child has limits of its own and is replaced after it was killed (`ingest/parser_process.py`).
So a file that crashes its child or takes too long costs that file only, and the others go on.
"""

import hashlib
import logging
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any, Self

from ingest.loaders import extension, loader_version
from ingest.loaders.base import ParseLimits
from ingest.loaders.libreoffice import NEW_FORMATS, convert
from ingest.parser_child import read_file
from ingest.parser_process import ParserProcess
from kb.errors import CancelledError, LoadError
from kb.records import Flag, Heading, LoadedDocument

__all__ = ["ParseLimits", "Parser"]

logger = logging.getLogger(__name__)

# More children than this seldom help, since embedding wants the cores too, and each may take as
# much memory as `parse_memory_mb` says.
_MOST_PROCESSES = 4
_POLL_S = 0.05  # how often a caller that waits for a child asks whether to stop


class Parser:
    """Loads files through warm child processes.

    Threads may share it; as many files as there are processes are read at once, further callers
    wait. Use it in a ``with`` block or call `close`.
    """

    def __init__(self, limits: ParseLimits, *, processes: int = 1) -> None:
        """Remember how; children start when files come.

        Args:
            limits: of each child.
            processes: at most so many children; 0 for the number of cores, at most 4.
        """
        self.n_processes = processes or min(os.cpu_count() or 1, _MOST_PROCESSES)
        self._limits = limits
        self._idle = threading.Condition()  # guards the list; notified when one is given back
        self._free = [ParserProcess(limits) for _ in range(self.n_processes)]
        self._converting = threading.Lock()  # held while LibreOffice runs
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

    def load(
        self, path: Path, name: str, *, should_stop: Callable[[], bool] = lambda: False
    ) -> LoadedDocument:
        """Read the text of one file.

        Args:
            path: where its bytes are.
            name: what its owner calls it; gives the format by its extension.
            should_stop: asked many times a second.

        Returns:
            The document, whose text is blank if there is nothing in it. Its hash is that of
            the very bytes that were parsed, read once.

        Raises:
            LoadError: the file cannot be read; the message is for its owner.
            CancelledError: `should_stop` said so, or `close` was called meanwhile.
        """
        if extension(name) in NEW_FORMATS:
            return self._load_converted(path, name, should_stop)

        def must_stop() -> bool:
            return self._is_closing or should_stop()

        with self._process(must_stop) as process:
            answer = process.ask(path, name, must_stop)
        if "error" in answer:
            if "trace" in answer:
                logger.debug("parsing a %s file failed:\n%s", path.suffix, answer["trace"])
            raise _load_error(answer["error"])
        return _document(answer["document"], name)

    def close(self) -> None:
        """End the children, at once: files that they are parsing end in `CancelledError`.

        A later `load` starts another.
        """
        self._is_closing = True
        with self._idle, self._converting:
            self._idle.wait_for(lambda: len(self._free) == self.n_processes)
            for process in self._free:
                process.close()
            self._is_closing = False

    @contextmanager
    def _process(self, must_stop: Callable[[], bool]) -> Iterator[ParserProcess]:
        """Borrow a child; the one used last comes first, so that a quiet pool stays small."""
        with self._idle:
            while not self._free:
                if must_stop():
                    raise CancelledError("stopped before the file was parsed")
                self._idle.wait(_POLL_S)
            process = self._free.pop()
        try:
            yield process
        finally:
            with self._idle:
                self._free.append(process)
                self._idle.notify_all()

    def _load_converted(
        self, path: Path, name: str, should_stop: Callable[[], bool]
    ) -> LoadedDocument:
        """Read an old Office document, after LibreOffice made a new one of it."""
        suffix = extension(name)
        data = read_file(str(path.absolute()), self._limits)
        new_name = f"document.{NEW_FORMATS[suffix][0]}"
        with TemporaryDirectory(prefix="kb-office-") as folder:
            with self._converting:
                converted = convert(
                    data,
                    suffix,
                    self._limits,
                    should_stop=lambda: self._is_closing or should_stop(),
                )
            new_path = Path(folder, new_name)
            new_path.write_bytes(converted)
            document = self.load(new_path, new_name, should_stop=should_stop)
        return replace(
            document,
            loader=loader_version(name),
            content_hash=hashlib.sha256(data).hexdigest(),
            size_bytes=len(data),
        )


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
        flags=tuple(Flag(*flag) for flag in document["flags"]),
    )


def _load_error(error: dict[str, str]) -> LoadError:
    known: dict[str, type[LoadError]] = {cls.__name__: cls for cls in LoadError.__subclasses__()}
    return known.get(error["type"], LoadError)(error["message"])
