"""The process that parses untrusted files: ``python -P -m ingest.parser_child``.

It answers one request at a time. A message is a length (4 bytes, big-endian) and that many
bytes of JSON. For each request it sends ``{"started": true}`` once the loader is imported,
so that the time limit counts the file only, then ``{"document": ...}`` or ``{"error": ...}``.

It ends when its standard input closes, also in the middle of a file. Whatever libraries print
goes to standard error, never into the answers.
"""

import hashlib
import json
import math
import os
import resource
import select
import stat
import struct
import sys
import threading
from typing import Any, BinaryIO

MEGABYTE = 1 << 20


def main() -> None:
    requests, answers = _take_over_pipes()
    threading.Thread(target=_exit_with_parent, args=(requests.fileno(),), daemon=True).start()
    while (request := read_message(requests)) is not None:
        for answer in _answer(request, answers):
            write_message(answers, answer)


def read_message(stream: BinaryIO) -> dict[str, Any] | None:
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


def write_message(stream: BinaryIO, message: dict[str, Any]) -> None:
    """Write one message and flush it."""
    body = json.dumps(message, ensure_ascii=True).encode("ascii")
    stream.write(struct.pack(">I", len(body)) + body)
    stream.flush()


def _take_over_pipes() -> tuple[BinaryIO, BinaryIO]:
    """Keep the two pipes for ourselves; what libraries print goes to standard error."""
    requests = os.fdopen(os.dup(0), "rb")
    answers = os.fdopen(os.dup(1), "wb")
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(2, 1)
    os.close(null)
    return requests, answers


def _exit_with_parent(fd: int) -> None:
    """Wait until the parent's end of the pipe is closed, then end at once."""
    poll = select.poll()
    poll.register(fd, 0)  # no events asked for: only the hang-up is reported
    poll.poll()
    os._exit(1)


def _answer(request: dict[str, Any], answers: BinaryIO) -> Any:
    from ingest.loaders import import_loader, load_bytes
    from ingest.loaders.base import ParseLimits
    from kb.errors import LoadError

    limits = ParseLimits(**request["limits"])
    try:
        import_loader(request["name"])
        _limit_cpu(limits.timeout_s)
        yield {"started": True}
        data = _read(request["path"], limits)
        loaded = load_bytes(data, request["name"], limits)
    except LoadError as exc:
        yield _error(exc)
        return
    yield {
        "document": {
            "text": loaded.text,
            "headings": [[h.start, h.level, h.title] for h in loaded.headings],
            "pages": list(loaded.pages),
            "encoding": loaded.encoding,
            "encoding_guessed": loaded.encoding_guessed,
            "content_hash": hashlib.sha256(data).hexdigest(),
            "size_bytes": len(data),
        }
    }


def _read(path: str, limits: Any) -> bytes:
    from kb.errors import LimitExceededError, LoadError

    try:
        # O_NONBLOCK: opening a FIFO must not wait for a writer.
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise LoadError("not a regular file")
            data = file.read(limits.max_file_mb * MEGABYTE + 1)
    except OSError as exc:
        raise LoadError(f"the file cannot be read: {exc.strerror}") from exc
    if len(data) > limits.max_file_mb * MEGABYTE:
        raise LimitExceededError(f"the file is larger than {limits.max_file_mb} MB")
    return data


def _limit_cpu(timeout_s: float) -> None:
    used = resource.getrusage(resource.RUSAGE_SELF)
    soft = math.ceil(used.ru_utime + used.ru_stime + 2 * timeout_s) + 5
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (soft, hard))


def _error(exc: Exception) -> dict[str, Any]:
    return {"error": {"type": type(exc).__name__, "message": str(exc)}}


if __name__ == "__main__":
    main()
    sys.exit(0)
