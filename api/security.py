"""Who may call. One function decides, for every route, before anything is read or done.

    Host     a name of this machine: a page elsewhere must not reach us by pointing its own name
             at 127.0.0.1 (DNS rebinding)
    Origin   this server itself, on everything that changes state: a page elsewhere must not act
             through the user's browser. There are no CORS headers, so it cannot read either
    key      on every route but the page, its files, `/health` and `/ready`, when one is set
    address  without a key only connections to a loopback address are served

With a key and a bind to all addresses any Host is served: the names of the machine cannot be
known then, and the key is what a rebinding page lacks.
"""

import hmac
import ipaddress
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from api.errors import HTTPError, error_response
from kb.config import Settings
from kb.errors import ConfigError

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
OPEN_PATHS = frozenset({"/", "/health", "/ready"})
OPEN_PREFIX = "/static/"


@dataclass(frozen=True, slots=True)
class AccessRules:
    """What the decision needs to know of the server's settings."""

    host: str
    key: str | None

    @classmethod
    def of(cls, settings: Settings) -> "AccessRules":
        key = settings.api_key.get_secret_value() if settings.api_key is not None else ""
        return cls(host=settings.host, key=key or None)


def check_bind(settings: Settings) -> None:
    """Refuse to serve other machines without a key.

    Raises:
        ConfigError: the address is not loopback and there is no key.
    """
    if not is_loopback(settings.host) and AccessRules.of(settings).key is None:
        raise ConfigError(
            f"{settings.host!r} can be reached from other machines, so an API key is needed: "
            "set KB_API_KEY to a long random text, or serve on 127.0.0.1"
        )


def refusal(scope: Scope, rules: AccessRules) -> HTTPError | None:
    """Decide on one request; None lets it pass."""
    headers = Headers(scope=scope)
    host = _host_name(headers.get("host", ""))
    if host is None or not _is_our_name(host, rules):
        return _forbidden("ForbiddenHostError", "this server does not answer to that host name")
    if rules.key is None and not _arrived_on_loopback(scope):
        return _forbidden("ForbiddenAddressError", "without an API key only this machine is served")
    if scope["method"] not in SAFE_METHODS and not _is_same_origin(headers):
        return _forbidden("ForbiddenOriginError", "requests from pages of other sites are refused")
    if rules.key is None or _is_open(scope):
        return None
    if _has_key(headers, rules.key):
        return None
    return HTTPError(
        401,
        "UnauthorizedError",
        "this server needs its API key: send 'Authorization: Bearer KEY' or 'X-API-Key: KEY'",
        {"WWW-Authenticate": "Bearer"},
    )


class Guard:
    """Asks `refusal` about every request, known route or not."""

    def __init__(self, app: ASGIApp, rules: AccessRules) -> None:
        self.app = app
        self.rules = rules

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":  # there are no websockets here
            await send({"type": "websocket.close", "code": 1008})
            return
        refused = refusal(scope, self.rules)
        answer = self.app if refused is None else error_response(refused)
        await answer(scope, receive, send)


def is_loopback(host: str) -> bool:
    if host.lower() in ("localhost", "localhost."):
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _forbidden(type_: str, message: str) -> HTTPError:
    return HTTPError(403, type_, message)


def _host_name(header: str) -> str | None:
    """Return the name in a Host header without its port, lower case; None when it is none."""
    try:
        parts = urlsplit(f"//{header}")
        _ = parts.port  # raises on a port that is none
    except ValueError:
        return None
    if header.startswith("[") and header.partition("]")[2][:1] not in ("", ":"):
        return None  # urlsplit forgets what follows the bracket
    if parts.path or parts.query or parts.fragment or parts.username is not None:
        return None
    return parts.hostname


def _is_our_name(host: str, rules: AccessRules) -> bool:
    if is_loopback(host) or host == rules.host.lower().strip("[]"):
        return True
    return rules.host in ("0.0.0.0", "::") and rules.key is not None


def _arrived_on_loopback(scope: Scope) -> bool:
    server = scope.get("server")
    # A unix socket has no port; who may open it is the file system's business.
    return server is None or server[1] is None or is_loopback(server[0])


def _is_same_origin(headers: Headers) -> bool:
    """Return whether a browser says that our own page sends this; other programs say nothing."""
    if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        return False
    origin = headers.get("origin")
    return origin is None or _authority(origin) == _authority(f"//{headers.get('host', '')}")


def _authority(url: str) -> tuple[str | None, int | None]:
    """Return host and port; the default ports count as none, since a proxy may end TLS."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return None, -1
    return parts.hostname, None if port in (80, 443) else port


def _is_open(scope: Scope) -> bool:
    path: str = scope["path"]
    return scope["method"] in ("GET", "HEAD") and (
        path in OPEN_PATHS or path.startswith(OPEN_PREFIX)
    )


def _has_key(headers: Headers, key: str) -> bool:
    scheme, _, bearer = headers.get("authorization", "").partition(" ")
    given = bearer.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "")
    # Headers are decoded as Latin-1, so encoding them back gives the bytes that were sent.
    return hmac.compare_digest(given.encode("latin-1"), key.encode())
