"""The process that parses untrusted files: ``python -P -m ingest.parser_child``.

It answers one request at a time over its standard input and output. A message is its length (4
bytes, big-endian) and that many bytes of JSON. To a request it sends ``{"started": true}`` as
soon as the loader is imported, so that the time limit counts the file only, ``{"part": true}``
before each part of a page that OCR reads, so that the limit counts anew, then
``{"document": ...}`` or ``{"error": ...}``.

It ends when its standard input closes, also in the middle of a file. What libraries print goes
to standard error, never between the messages. Python code in it cannot open connections nor
start programs. It is no sandbox against code that a damaged file might smuggle into a library:
such code would have the user's rights.
"""

import hashlib
import json
import math
import os
import re
import resource
import select
import signal
import stat
import struct
import sys
import threading
import traceback
from collections.abc import Iterator
from functools import partial
from typing import IO, Any

from ingest.loaders import import_loader, load_bytes, progress
from ingest.loaders.base import LoadedText, ParseLimits
from kb.errors import CorruptFileError, LimitExceededError, LoadError, UnsupportedFormatError

MEGABYTE = 1 << 20
# Parsing gives way to questions and answers, as embedding does.
NICE = 5
# The parent watches the resident size; this stops what grows faster than it looks.
_DATA_HEADROOM_MB = 512
_FORBIDDEN_EVENTS = re.compile(
    r"socket\.(connect|bind|sendto|getaddrinfo)|subprocess\.Popen|os\.(system|exec|posix_spawn|fork)"
)
_SURROGATE = re.compile("[\ud800-\udfff]")


def main() -> None:
    """Serve requests until the parent closes the pipe."""
    requests, answers = _take_over_pipes()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core file would hold documents
    os.nice(NICE)
    # thinc, which spaCy and so `unstructured` import, takes torch along: 2 s and 180 MB.
    sys.modules["torch"] = None  # type: ignore[assignment]
    sys.addaudithook(_forbid_outside)
    threading.Thread(target=_exit_with_parent, args=(requests.fileno(),), daemon=True).start()
    while (request := read_message(requests)) is not None:
        progress.next_part = partial(_renew_time, answers, ParseLimits(**request["limits"]))
        for answer in _answers(request):
            write_message(answers, answer)


def read_message(stream: IO[bytes]) -> dict[str, Any] | None:
    """Read one message; None at the end of the stream, also in the middle of a message."""
    header = stream.read(4)
    if len(header) < 4:
        return None
    (length,) = struct.unpack(">I", header)
    body = stream.read(length)
    if len(body) < length:
        return None
    message: dict[str, Any] = json.loads(body)
    return message


def write_message(stream: IO[bytes], message: dict[str, Any]) -> None:
    """Write one message and flush it."""
    # Paths that are not UTF-8 hold lone surrogates, which only ASCII escapes carry over.
    is_request = "path" in message
    body = json.dumps(message, ensure_ascii=is_request).encode("utf-8")
    stream.write(struct.pack(">I", len(body)) + body)
    stream.flush()


def _take_over_pipes() -> tuple[IO[bytes], IO[bytes]]:
    """Keep both pipes for ourselves; leave nothing to read and standard error to write to."""
    requests = os.fdopen(os.dup(0), "rb")
    answers = os.fdopen(os.dup(1), "wb")
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(2, 1)
    os.close(null)
    return requests, answers


def _forbid_outside(event: str, arguments: tuple[Any, ...]) -> None:
    if _FORBIDDEN_EVENTS.fullmatch(event):
        raise PermissionError(f"{event} is not allowed while a file is parsed")


def _exit_with_parent(fd: int) -> None:
    """Wait until the parent's end of the pipe is closed, then end at once."""
    poll = select.poll()
    poll.register(fd, 0)  # no events asked for: only a hang-up is reported
    poll.poll()
    os._exit(0)


def _answers(request: dict[str, Any]) -> Iterator[dict[str, Any]]:
    name, limits = request["name"], ParseLimits(**request["limits"])
    try:
        _import(name)
        _limit_resources(limits)
        yield {"started": True}
        data = read_file(request["path"], limits)
        loaded = load_bytes(data, name, limits)
    except LoadError as exc:
        yield _error(exc)
    except MemoryError:
        yield _error(
            LimitExceededError(f"reading the file needs more than {limits.memory_mb} MB of memory")
        )
    except Exception as exc:  # noqa: BLE001  libraries raise anything on damaged files
        failed = CorruptFileError("the file could not be read; it may be damaged")
        yield _error(failed) | {"trace": "".join(traceback.format_exception(exc))}
    else:
        yield {"document": _document(data, loaded)}


def _import(name: str) -> None:
    try:
        import_loader(name)
    except ImportError as exc:
        raise UnsupportedFormatError(
            f"this format needs the package {exc.name!r}, which is not installed properly"
        ) from exc


def _renew_time(answers: IO[bytes], limits: ParseLimits) -> None:
    """Let the time limit begin anew, here and in the parent."""
    _limit_processor_time(limits)
    write_message(answers, {"part": True})


def _limit_resources(limits: ParseLimits) -> None:
    """Bound memory and processor time, in case the parent is gone or looks too late."""
    _set_soft_limit(resource.RLIMIT_DATA, (limits.memory_mb + _DATA_HEADROOM_MB) * MEGABYTE)
    _limit_processor_time(limits)


def _limit_processor_time(limits: ParseLimits) -> None:
    used = resource.getrusage(resource.RUSAGE_SELF)
    # Libraries may use several threads.
    seconds = math.ceil(used.ru_utime + used.ru_stime + 4 * limits.timeout_s) + 10
    _set_soft_limit(resource.RLIMIT_CPU, seconds)


def _set_soft_limit(kind: int, value: int) -> None:
    _, hard = resource.getrlimit(kind)
    soft = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(kind, (soft, hard))


def read_file(path: str, limits: ParseLimits) -> bytes:
    """Return the bytes of a regular file.

    Raises:
        LoadError: it cannot be opened, is none, or is too large.
    """
    try:
        # O_NONBLOCK: opening a FIFO must not wait for a writer.
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise LoadError("this is no regular file")
            data = file.read(limits.max_file_mb * MEGABYTE + 1)
    except OSError as exc:
        raise LoadError(f"the file cannot be read: {exc.strerror}") from exc
    if len(data) > limits.max_file_mb * MEGABYTE:
        raise LimitExceededError(
            f"the file is larger than {limits.max_file_mb} MB; split it or raise max_file_mb"
        )
    return data


def _document(data: bytes, loaded: LoadedText) -> dict[str, Any]:
    return {
        # One character for one, so that offsets hold.
        "text": _SURROGATE.sub("\ufffd", loaded.text),
        "headings": [
            [heading.start, heading.level, _SURROGATE.sub("\ufffd", heading.title)]
            for heading in loaded.headings
        ],
        "pages": list(loaded.pages),
        "encoding": loaded.encoding,
        "encoding_guessed": loaded.encoding_guessed,
        "content_hash": hashlib.sha256(data).hexdigest(),
        "size_bytes": len(data),
        "notes": list(loaded.notes),
        "flags": [[flag.kind, flag.detail] for flag in loaded.flags],
    }


def _error(exc: LoadError) -> dict[str, Any]:
    return {"error": {"type": type(exc).__name__, "message": str(exc)}}


if __name__ == "__main__":
    main()
