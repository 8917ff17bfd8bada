"""Fetch one large file over HTTP so that a broken line costs little and a wrong file never lands.

A file grows as ``NAME.part``; beside it ``NAME.part.json`` says which content it is a part of.
Only after its size and digest are right is it synced and renamed to ``NAME``. So a reader of the
folder sees whole files or none, and an interrupted download continues where it stopped:

    kept bytes?  ── none ──> GET                         200: from the start
         └── n ──> GET, Range: bytes=n-, If-Range: ETag  206: from n
                                                         200: the file changed, or no ranges here
                                                         416: drop what is there, from the start

Kept bytes count only for the content that is wanted now: the same digest, or, where the hub
publishes none, the same address and a strong ETag. Proxies are those of the environment
(``HTTPS_PROXY``, ``NO_PROXY``), as urllib reads them. Leaves out: several connections for one
file, and protocols other than plain HTTP.
"""

import hashlib
import json
import logging
import os
import re
import ssl
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.message import Message
from email.utils import parsedate_to_datetime
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import IO, Any, TypeVar, cast
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from llm.errors import DownloadError

logger = logging.getLogger(__name__)

TRIES = 4  # in a row that brought less than MIN_PROGRESS bytes
BACKOFF_S = 1.0  # before the second try; doubled before each further one
MIN_PROGRESS = 1 << 20
MAX_WAIT_S = 60.0  # a server that asks for a longer pause is left to the user
TIMEOUT_S = 30.0  # of silence
BLOCK = 1 << 20
MAX_JSON = 16 << 20

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file as the hub lists it.

    ``digest`` is ``sha256:HEX``, ``git:HEX`` (SHA-1 of a git blob, for small files), or empty
    where the hub publishes none; then only the size can be checked.
    """

    path: str
    size_bytes: int
    digest: str


class _TransientError(Exception):
    """A try failed in a way that the next may not."""

    def __init__(self, reason: str, *, status: int = 0, wait_s: float = 0, brought: int = 0):
        super().__init__(reason)
        self.status = status
        self.wait_s = wait_s
        self.brought = brought  # bytes


class Client:
    """GET requests to one hub, with retries. The token goes to the hub's own origin only.

    Raises:
        DownloadError: the endpoint is no http or https address, or the token cannot be sent.
    """

    def __init__(
        self,
        endpoint: str,
        *,
        token: str | None = None,
        cancel: Callable[[], bool] | None = None,
    ) -> None:
        self.endpoint = endpoint.rstrip("/")
        self._origin = _checked_origin(self.endpoint)
        self.host = self._origin[1]
        if token and not (token.isascii() and token.isprintable() and " " not in token):
            raise DownloadError("the hub token holds characters that no token has; check it")
        self._token = token
        self._cancel = cancel
        self._opener = build_opener(_SafeRedirects)

    def get_json(self, url: str, wanted: str) -> Any:
        """Fetch a JSON value; `wanted` names it in errors.

        Raises:
            DownloadError: it cannot be had, or is no JSON.
        """
        body = self.retrying(lambda: self._read(url, wanted), wanted)
        try:
            return json.loads(body)
        except ValueError as exc:
            raise DownloadError(
                f"{self.host} answered with something else than the list of files of {wanted}; "
                "check the endpoint, and whether a proxy or a login page is in between"
            ) from exc

    def open(self, url: str, wanted: str, headers: dict[str, str] | None = None) -> HTTPResponse:
        """Send one GET. The caller closes the response.

        Raises:
            DownloadError: the answer will not change by asking again.
            _TransientError: it may.
        """
        request = Request(url, headers={"User-Agent": "local-kb", **(headers or {})})
        # A body in another encoding could neither be resumed nor measured.
        request.add_header("Accept-Encoding", "identity")
        if self._token and _origin(url) == self._origin:
            request.add_header("Authorization", f"Bearer {self._token}")
        try:
            return cast(HTTPResponse, self._opener.open(request, timeout=TIMEOUT_S))
        except HTTPError as exc:
            with exc:
                raise self._refusal(exc.code, exc.headers, wanted) from exc
        except (OSError, HTTPException) as exc:
            reason = exc.reason if isinstance(exc, URLError) else exc
            if isinstance(reason, ssl.SSLCertVerificationError):
                raise DownloadError(
                    f"the certificate of {self.host} cannot be verified "
                    f"({reason.verify_message}); check the clock, the proxy and the endpoint"
                ) from exc
            raise _TransientError(_spelled(reason)) from exc

    def retrying(self, attempt: Callable[[], T], wanted: str) -> T:
        """Run `attempt` until it succeeds or has failed ``TRIES`` times without progress."""
        failures = 0
        while True:
            self.stop_if_cancelled()
            try:
                return attempt()
            except _TransientError as exc:
                failures = 1 if exc.brought >= MIN_PROGRESS else failures + 1
                if failures >= TRIES or exc.wait_s > MAX_WAIT_S:
                    raise DownloadError(self._gave_up(exc, wanted)) from exc
                logger.info("%s: %s; try %d of %d", wanted, exc, failures + 1, TRIES)
                self._pause(exc.wait_s or BACKOFF_S * 2 ** (failures - 1))

    def stop_if_cancelled(self) -> None:
        if self._cancel is not None and self._cancel():
            raise DownloadError(
                "the download was stopped; what arrived is kept, the same command continues"
            )

    def _read(self, url: str, wanted: str) -> bytes:
        with self.open(url, wanted) as response:
            try:
                body = response.read(MAX_JSON + 1)
            except (OSError, HTTPException) as exc:
                raise _TransientError(_spelled(exc)) from exc
        if len(body) > MAX_JSON:
            raise DownloadError(f"{self.host} lists far too much for {wanted}; check the endpoint")
        return body

    def _pause(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            self.stop_if_cancelled()
            time.sleep(min(left, 0.2))

    def _refusal(self, status: int, headers: Message, wanted: str) -> Exception:
        if status in (408, 416, 425, 429) or status >= 500:
            return _TransientError(
                f"{self.host} answered HTTP {status}", status=status, wait_s=_retry_after(headers)
            )
        if status in (401, 403):
            # Hugging Face says 401 for repositories that do not exist, too.
            return DownloadError(
                f"{self.host} refuses {wanted} (HTTP {status}); check the name, and if it needs "
                "an account, give a token that may read it"
            )
        if status == 404:
            return DownloadError(
                f"{self.host} does not have {wanted} (HTTP 404); check the name, "
                "or try another source or a mirror"
            )
        return DownloadError(f"{self.host} answered HTTP {status} for {wanted}; try another source")

    def _gave_up(self, exc: _TransientError, wanted: str) -> str:
        if exc.wait_s > MAX_WAIT_S:
            return (
                f"{self.host} is busy and asks for a pause of {exc.wait_s:.0f} s; "
                "run the same command again then, it continues"
            )
        return (
            f"cannot fetch {wanted} from {self.host}: {exc}; what arrived is kept, run the same "
            "command again, or try another source or mirror"
        )


def fetch(
    client: Client,
    url: str,
    file: RemoteFile,
    target: Path,
    on_bytes: Callable[[int], None],
) -> None:
    """Bring `file` to `target`, continuing what an earlier run left.

    Args:
        on_bytes: told how many bytes of the file are there; falls when a server starts over.

    Raises:
        DownloadError: it could not be fetched (what arrived is kept), or what arrived is not
            what the hub lists (it is deleted).
    """
    part = _part(target)
    client.retrying(lambda: _receive(client, url, file, target, on_bytes), file.path)
    _verify(target, file, client.host)
    try:
        _sync(part)
        os.replace(part, target)
        _sync(target.parent)
    except OSError as exc:
        raise _unwritable(target, exc) from exc
    discard_part(target)


def kept_bytes(url: str, file: RemoteFile, target: Path) -> int:
    """Return how much of `file` an earlier run left that the next can continue from."""
    return _kept(url, file, target)[0]


def discard_part(target: Path) -> None:
    """Remove what a download of `target` left, if anything."""
    _part(target).unlink(missing_ok=True)
    _about(target).unlink(missing_ok=True)


def digest_of(path: Path, kind: str) -> str:
    """Return the digest of a file as ``kind:HEX``; `kind` is ``sha256`` or ``git``."""
    if kind == "git":
        hasher = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    else:
        hasher = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(BLOCK):
            hasher.update(block)
    return f"{kind}:{hasher.hexdigest()}"


def _receive(
    client: Client, url: str, file: RemoteFile, target: Path, on_bytes: Callable[[int], None]
) -> None:
    """Make one try to have all bytes of `file` in its part."""
    part = _part(target)
    kept, etag = _kept(url, file, target)
    on_bytes(kept)
    if kept == file.size_bytes and part.exists():
        return
    headers = {"Range": f"bytes={kept}-"} if kept else {}
    if kept and etag:
        headers["If-Range"] = etag
    try:
        response = client.open(url, file.path, headers)
    except _TransientError as exc:
        if exc.status == 416:
            discard_part(target)
        raise
    with response:
        start = _start(response, kept, etag, file, client.host)
        if start is None:
            discard_part(target)
            raise _TransientError("the file changed, or another range came than was asked for")
        try:
            if start == 0:
                _write_about(target, url, file, response)
            with part.open("r+b" if start else "wb") as out:
                out.seek(start)
                _copy(client, response, out, file, start, on_bytes)
        except OSError as exc:
            raise _unwritable(target, exc) from exc


def _start(response: HTTPResponse, kept: int, etag: str, file: RemoteFile, host: str) -> int | None:
    """Return the offset at which the body starts, or None where that cannot be trusted.

    Raises:
        DownloadError: the body is not the file that the hub lists.
    """
    if (coding := response.headers.get("Content-Encoding", "identity")) != "identity":
        raise DownloadError(
            f"{host} sends {file.path} encoded as {coding!r}, which nobody asked for; "
            "check the proxy, or try another source or mirror"
        )
    if response.status == 206:
        sent = re.fullmatch(
            r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", "").strip()
        )
        fits = sent and int(sent[1]) == kept and sent[2] in (str(file.size_bytes), "*")
        # Some servers know ranges but not If-Range.
        has_changed = bool(etag) and response.headers.get("ETag", etag) != etag
        return kept if fits and not has_changed else None
    length = response.headers.get("Content-Length", "")
    if length.isdecimal() and int(length) != file.size_bytes:
        raise DownloadError(
            f"{host} sends {file.path} with {length} bytes where its list says "
            f"{file.size_bytes}: the file has changed, or this is a Git LFS pointer or a login "
            "page; run the same command again, or try another source or mirror"
        )
    return 0


def _copy(
    client: Client,
    response: HTTPResponse,
    out: IO[bytes],
    file: RemoteFile,
    start: int,
    on_bytes: Callable[[int], None],
) -> None:
    received = start
    while received < file.size_bytes:
        client.stop_if_cancelled()
        try:
            block = response.read1(min(BLOCK, file.size_bytes - received))
        except (OSError, HTTPException) as exc:
            raise _TransientError(_spelled(exc), brought=received - start) from exc
        if not block:
            raise _TransientError(
                f"the line broke after {received} of {file.size_bytes} bytes",
                brought=received - start,
            )
        out.write(block)
        received += len(block)
        on_bytes(received)


def _kept(url: str, file: RemoteFile, target: Path) -> tuple[int, str]:
    """Return the number of bytes to keep, and the ETag they must still have, if any."""
    try:
        size = _part(target).stat().st_size
        about = json.loads(_about(target).read_text(encoding="utf-8"))
        digest, etag, origin = (str(about[key]) for key in ("digest", "etag", "url"))
    except (OSError, ValueError, KeyError, TypeError):
        return 0, ""
    if origin != url:  # another mirror: its ETags are its own
        etag = ""
    same = digest == file.digest if file.digest else bool(etag) and not digest
    return (size, etag) if same and size <= file.size_bytes else (0, "")


def _write_about(target: Path, url: str, file: RemoteFile, response: HTTPResponse) -> None:
    etag = response.headers.get("ETag", "")
    # A weak tag promises the same meaning, not the same bytes, and may not go into If-Range.
    strong = "" if etag.startswith("W/") else etag
    # The old part goes first: it must never be described by the new words.
    _part(target).unlink(missing_ok=True)
    _about(target).write_text(
        json.dumps({"digest": file.digest, "etag": strong, "url": url}), encoding="utf-8"
    )


def _verify(target: Path, file: RemoteFile, host: str) -> None:
    if not file.digest:
        return
    kind, _, expected = file.digest.partition(":")
    got = digest_of(_part(target), kind).partition(":")[2]
    if got != expected:
        discard_part(target)
        name = "git hash" if kind == "git" else kind
        raise DownloadError(
            f"{file.path} from {host} is damaged: its {name} is {got}, expected {expected}; "
            "it was deleted, run the same command again or try another source or mirror"
        )


def _part(target: Path) -> Path:
    return target.with_name(target.name + ".part")


def _about(target: Path) -> Path:
    return target.with_name(target.name + ".part.json")


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _unwritable(path: Path, exc: OSError) -> DownloadError:
    return DownloadError(
        f"cannot write {str(path)!r}: {exc.strerror}; what arrived is kept, "
        "make room or mend the folder and run the same command again"
    )


def _spelled(reason: object) -> str:
    if isinstance(reason, TimeoutError):
        return f"no answer for {TIMEOUT_S:.0f} s"
    if isinstance(reason, OSError) and reason.strerror:
        return reason.strerror
    return str(reason) or type(reason).__name__


def _retry_after(headers: Message) -> float:
    """Return the seconds of a Retry-After header, which holds a number or a date; else 0."""
    text = (headers.get("Retry-After") or "").strip()
    if text.isdecimal():
        return float(text)
    with suppress(ValueError, TypeError):
        return max(0.0, (parsedate_to_datetime(text) - datetime.now(UTC)).total_seconds())
    return 0


def _checked_origin(endpoint: str) -> tuple[str, str, int]:
    try:
        origin = _origin(endpoint)
        origin[1].encode("idna")
        fits = endpoint.isascii() and endpoint.isprintable() and " " not in endpoint
    except ValueError:
        fits = False
    # Names and passwords in the address would end up in messages.
    if not fits or origin[0] not in ("http", "https") or not origin[1] or "@" in endpoint:
        raise DownloadError(
            "the hub's endpoint must be an address like https://hf-mirror.com, "
            "without a name or password in it"
        )
    return origin


def _origin(url: str) -> tuple[str, str, int]:
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return parts.scheme, (parts.hostname or ""), port


class _SafeRedirects(HTTPRedirectHandler):
    """Follow redirects, but give no token to another origin and do not fall back to http."""

    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> Request | None:
        old, new = _origin(req.full_url), _origin(newurl)
        if old[0] == "https" and new[0] != "https":
            raise DownloadError(
                f"{old[1]} sends on to an address without encryption at {new[1]}; "
                "try another source or mirror"
            )
        request = super().redirect_request(req, fp, code, msg, headers, newurl)
        if request is not None and new != old:
            request.remove_header("Authorization")
        return request
