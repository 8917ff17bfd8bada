"""The outermost layer: safe headers on every reply, a count of it, and a net under every bug."""

from starlette.datastructures import MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.errors import error_response, log_bug
from api.metrics import Metrics

# The page loads nothing from elsewhere and runs no inline code, so that a document's text, should
# it ever be shown as markup, can neither run nor call out.
PAGE_POLICY = (
    "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'"
)
SAFE_HEADERS = {
    "content-security-policy": PAGE_POLICY,
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}
KNOWN_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class Observe:
    """Wraps the whole application, the access checks included."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app = app
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        status = 0

        async def send_safely(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in SAFE_HEADERS.items():
                    headers.setdefault(name, value)
                headers.setdefault("cache-control", _cache_rule(scope["path"]))
            await send(message)

        try:
            await self.app(scope, receive, send_safely)
        except ClientDisconnect:
            return  # in the middle of its own request: nobody is left to answer
        except Exception as exc:  # the HTTP boundary: a bug becomes a 500 with an id in the log
            if status:  # too late for another reply; the connection is cut, as it must be
                log_bug(exc)
                raise
            await error_response(exc)(scope, receive, send_safely)
        finally:
            if status:
                self.metrics.count_request(_method(scope), _template(scope), status)


def _cache_rule(path: str) -> str:
    """Let the page's files be kept if they are asked for again; answers are never kept."""
    return "no-cache" if path == "/" or path.startswith("/static/") else "no-store"


def _method(scope: Scope) -> str:
    return scope["method"] if scope["method"] in KNOWN_METHODS else "other"


def _template(scope: Scope) -> str:
    """Return the route's template, such as ``/kb/{id}``; unknown paths share one name."""
    route = scope.get("route")
    return str(getattr(route, "path", "unmatched"))
