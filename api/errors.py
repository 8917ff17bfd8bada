"""Map every failure to HTTP, once: ``{"error": {"type", "message"}}`` and a status.

Expected failures are `KBError`s, mapped by `STATUS`, and `HTTPError`s, which belong to HTTP alone
and carry their own status. Anything else is a bug: the log gets the traceback and an id, the
client the id.
"""

import logging
import secrets
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from kb import errors
from kb.errors import (
    AlreadyExistsError,
    AnswererError,
    CancelledError,
    ConfirmationNeededError,
    EmbedderError,
    InvalidInputError,
    KBError,
    LoadError,
    NotFoundError,
    RerankerError,
    StorageError,
    VersionMismatchError,
)

logger = logging.getLogger(__name__)

# First match wins, so a subclass goes above its base.
STATUS: tuple[tuple[type[KBError], int], ...] = (
    (NotFoundError, 404),
    (AlreadyExistsError, 409),
    (ConfirmationNeededError, 409),
    (VersionMismatchError, 409),
    (CancelledError, 409),
    (InvalidInputError, 422),
    (LoadError, 422),
    (AnswererError, 502),
    (EmbedderError, 503),
    (RerankerError, 503),
    (StorageError, 503),
    (KBError, 500),
)
# How long a client should wait where the cause is a full disk or a model that is not there.
RETRY_AFTER_S = 30
# More findings than this in one body help nobody.
MAX_FINDINGS = 5


class HTTPError(Exception):
    """A failure that only HTTP knows of."""

    def __init__(
        self, status: int, type_: str, message: str, headers: Mapping[str, str] | None = None
    ) -> None:
        self.status = status
        self.type = type_
        self.headers = dict(headers or {})
        super().__init__(message)


class TooLargeError(HTTPError):
    def __init__(self, limit_bytes: int) -> None:
        super().__init__(
            413,
            "TooLargeError",
            f"the request is larger than {limit_bytes / 2**20:g} MB; send less at once"
            " (uploads: the setting is max_upload_mb)",
            # What is left of the body is not read, so the connection cannot be used again.
            {"Connection": "close"},
        )


class BusyError(HTTPError):
    def __init__(self, limit: int) -> None:
        super().__init__(
            503,
            "BusyError",
            f"{limit} questions are being answered already; try again in a moment",
            {"Retry-After": "2"},
        )


def status_for(exc: KBError) -> int:
    return next(status for cls, status in STATUS if isinstance(exc, cls))


def status_for_name(type_: str) -> int:
    """Return the status of a failure of which only the class name is left."""
    cls = getattr(errors, type_, KBError)
    is_ours = isinstance(cls, type) and issubclass(cls, KBError)
    return next(status for base, status in STATUS if issubclass(cls if is_ours else KBError, base))


def error_body(type_: str, message: str) -> dict[str, Any]:
    return {"error": {"type": type_, "message": message}}


def describe(exc: Exception) -> dict[str, str]:
    """Return type and message for an `error` event, when the status line has gone already."""
    if isinstance(exc, KBError):
        return {"type": type(exc).__name__, "message": str(exc)}
    if isinstance(exc, HTTPError):
        return {"type": exc.type, "message": str(exc)}
    return {"type": "InternalError", "message": log_bug(exc)}


def log_bug(exc: Exception) -> str:
    """Log the traceback under a new id; return the message for the client, which holds the id."""
    bug_id = secrets.token_hex(8)
    logger.error("internal error %s", bug_id, exc_info=exc)
    return f"internal error {bug_id}; the server's log says more under this id"


def error_response(exc: Exception) -> JSONResponse:
    """Return the reply to any exception that a route let out."""
    if isinstance(exc, KBError):
        status = status_for(exc)
        if status in (500, 503):  # the server's own trouble; 502 may quote what a model was sent
            logger.warning("%s: %s", type(exc).__name__, exc)
        headers = {"Retry-After": str(RETRY_AFTER_S)} if status == 503 else {}
        return JSONResponse(error_body(type(exc).__name__, str(exc)), status, headers)
    if isinstance(exc, HTTPError):
        return JSONResponse(error_body(exc.type, str(exc)), exc.status, exc.headers)
    return JSONResponse(error_body("InternalError", log_bug(exc)), 500)


def install_error_handlers(app: FastAPI) -> None:
    """Answer everything that goes wrong in a route. `api.observe` catches what is not expected."""

    @app.exception_handler(KBError)
    @app.exception_handler(HTTPError)
    async def expected(_request: Request, exc: Exception) -> JSONResponse:
        return error_response(exc)

    @app.exception_handler(RequestValidationError)
    async def invalid(_request: Request, exc: RequestValidationError) -> JSONResponse:
        message = "; ".join(_finding(finding) for finding in exc.errors()[:MAX_FINDINGS])
        return JSONResponse(error_body("InvalidInputError", message), 422)

    @app.exception_handler(HTTPException)
    async def from_framework(request: Request, exc: HTTPException) -> JSONResponse:
        type_, message = {
            404: ("NotFoundError", f"there is no {request.url.path!r} here"),
            405: ("MethodNotAllowedError", f"{request.method} is not allowed here"),
            413: ("TooLargeError", "the request is too large"),
        }.get(exc.status_code, ("BadRequestError", str(exc.detail)))
        return JSONResponse(error_body(type_, message), exc.status_code, exc.headers)


def _finding(finding: Mapping[str, Any]) -> str:
    """Say which field is wrong and why; never repeats what was sent."""
    where = [str(part) for part in finding["loc"]]
    if where and where[0] in ("body", "query", "path", "header"):
        where = where[1:]
    if finding["type"] == "json_invalid":
        return "body: not valid JSON"
    if not where and finding["type"] in ("model_attributes_type", "missing"):
        return "body: send a JSON object, with Content-Type: application/json"
    return f"{'.'.join(where) or 'body'}: {finding['msg'].removeprefix('Value error, ')}"
