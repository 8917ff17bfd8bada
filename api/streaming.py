"""Turn a blocking iterator into an HTTP event stream, and stop it when the client leaves.

The iterator runs in worker threads, one step at a time; the event loop only passes bytes on.
While a step takes long, comment lines keep the connection open and prove that it still is. When
the client disconnects, the step under way ends by itself and the iterator is closed, so that its
`finally` blocks run: that is how an answer nobody reads any more stops costing.

Format: https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

import json
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from typing import Any, Generic, TypeVar

import anyio
import anyio.to_thread
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from api.errors import describe

logger = logging.getLogger(__name__)

T = TypeVar("T")
Put = Callable[[bytes], Awaitable[None]]

KEEP_ALIVE_S = 10.0
_END: Any = object()
# Buffering proxies would turn a stream into one late reply.
_HEADERS = {"cache-control": "no-store", "x-accel-buffering": "no"}


def sse(event: str, data: Any) -> bytes:
    """Return one event; JSON has no raw line breaks, so it fits on one data line."""
    return f"event: {event}\ndata: {to_json(data)}\n\n".encode()


def sse_data(data: str) -> bytes:
    """Return an event without a name, as OpenAI-compatible clients expect them."""
    return f"data: {data}\n\n".encode()


def to_json(data: Any) -> str:
    return json.dumps(data, ensure_ascii=False, allow_nan=False)


def error_event(exc: Exception) -> bytes:
    return sse("error", describe(exc))


class Prefetched(Generic[T]):
    """An iterator whose first step has been taken already.

    The first step of an answer finds everything that can be found wrong cheaply; taking it before
    the reply begins lets such a failure have a status line of its own.
    """

    def __init__(self, steps: Iterator[T]) -> None:
        self._first: list[T] = [next(steps)]
        self._rest = steps

    def __iter__(self) -> "Prefetched[T]":
        return self

    def __next__(self) -> T:
        return self._first.pop() if self._first else next(self._rest)

    def close(self) -> None:
        """Close the iterator, so that its clean-up runs now."""
        close = getattr(self._rest, "close", None)
        if close is None:
            return
        try:
            close()
        except ValueError:  # a step is under way in another thread, because the server stops
            logger.info("an answer was given up in the middle of a step")


class EventStream(Response):
    """A reply whose body comes piece by piece.

    An exception of `pieces` becomes the last event, made by `on_error`, since the status line has
    gone by then. `close` is called once in a worker thread, whatever ends the stream.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        pieces: AsyncGenerator[bytes],
        *,
        close: Callable[[], None] = lambda: None,
        on_error: Callable[[Exception], bytes] = error_event,
        keep_alive_s: float = KEEP_ALIVE_S,
    ) -> None:
        # No super().__init__: it would announce the length of a body that is not there yet.
        self.status_code = 200
        self.background = None
        self.init_headers(_HEADERS)
        self._pieces = pieces
        self._close = close
        self._on_error = on_error
        self._keep_alive_s = keep_alive_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        sending = anyio.Lock()  # two tasks write: the pieces and the keep-alive comments

        async def put(piece: bytes) -> None:
            async with sending:
                await send({"type": "http.response.body", "body": piece, "more_body": True})

        try:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(_cancel_on_disconnect, receive, tasks.cancel_scope)
                tasks.start_soon(_keep_alive, put, self._keep_alive_s)
                await self._put_all(put)
                async with sending:
                    await send({"type": "http.response.body", "body": b"", "more_body": False})
                tasks.cancel_scope.cancel()
        finally:
            with anyio.CancelScope(shield=True):
                await self._pieces.aclose()
                await anyio.to_thread.run_sync(self._close)

    async def _put_all(self, put: Put) -> None:
        while True:
            try:
                piece = await anext(self._pieces, None)
            except Exception as exc:  # noqa: BLE001 - the HTTP boundary of a reply under way
                await put(self._on_error(exc))
                return
            if piece is None:
                return
            await put(piece)


async def steps_in_threads(steps: Iterator[T]) -> AsyncGenerator[T]:
    """Yield what `steps` yields, each step in a worker thread; the caller closes `steps`."""
    while True:
        step = await anyio.to_thread.run_sync(next, steps, _END)
        if step is _END:
            return
        yield step


async def last_step(request: Request, steps: Prefetched[T]) -> T | None:
    """Run `steps` to the end and return the last one; None when the client left before that."""
    last: T | None = None
    try:
        async for step in steps_in_threads(steps):
            last = step
            if await request.is_disconnected():
                return None
        return last
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(steps.close)


async def _cancel_on_disconnect(receive: Receive, scope: anyio.CancelScope) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    scope.cancel()


async def _keep_alive(put: Put, every_s: float) -> None:
    while True:
        await anyio.sleep(every_s)
        await put(b": keep-alive\n\n")
