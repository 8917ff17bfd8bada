"""How much a request may send, and how many questions are answered at once."""

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.errors import BusyError, TooLargeError, error_response

# JSON bodies are read into memory. A question of 100,000 characters and a long history fit.
MAX_JSON_BYTES = 4 * 2**20
_UPLOAD_PATH = re.compile(r"/kb/[^/]+/documents/?")


class BodyLimit:
    """Answers 413: by Content-Length before anything is read, and by counting what arrives."""

    def __init__(self, app: ASGIApp, max_upload_bytes: int) -> None:
        self.app = app
        self.max_upload_bytes = max_upload_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        limit = self._limit(scope)
        if _announced_bytes(scope) > limit:
            await error_response(TooLargeError(limit))(scope, receive, send)
            return
        received = 0

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > limit:
                # The one exception that FastAPI lets through while it reads a body.
                error = TooLargeError(limit)
                raise HTTPException(error.status, str(error), error.headers)
            return message

        await self.app(scope, counted, send)

    def _limit(self, scope: Scope) -> int:
        is_upload = scope["method"] == "POST" and _UPLOAD_PATH.fullmatch(scope["path"])
        return self.max_upload_bytes if is_upload else MAX_JSON_BYTES


def _announced_bytes(scope: Scope) -> int:
    length = Headers(scope=scope).get("content-length", "")
    return int(length) if length.isascii() and length.isdigit() else 0


class Slots:
    """A fixed number of places; who finds none is told to come back, not queued."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._free = threading.Semaphore(limit)

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Hold one place.

        Raises:
            BusyError: all are taken.
        """
        if not self._free.acquire(blocking=False):
            raise BusyError(self.limit)
        try:
            yield
        finally:
            self._free.release()
