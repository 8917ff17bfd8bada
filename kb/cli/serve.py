"""`kb serve`: the HTTP API and the web page, on this machine unless told otherwise."""

import errno
import socket
from typing import TYPE_CHECKING

import click

from kb.cli.edge import Edge, pass_edge
from kb.errors import KBError

if TYPE_CHECKING:
    from kb.config import Settings

# How long streams may go on after the server was told to stop.
SHUTDOWN_S = 5
# Connections that may wait to be accepted; uvicorn's own default is the same.
BACKLOG = 2048


@click.command(epilog="Example:  kb serve --port 8080")
@click.option("--host", help="Address to listen on; others than this machine's need KB_API_KEY.")
@click.option("--port", type=click.IntRange(0, 65535), help="Port; 0 picks a free one.")
@pass_edge
def serve(edge: Edge, host: str | None, port: int | None) -> int:
    """Serve the HTTP API and the web page until interrupted.

    Uploads that an earlier run did not finish are taken up again.
    """
    # Imported here: `kb --help` needs no web server.
    import uvicorn

    from api.app import create_app
    from api.security import check_bind

    flags = {"host": host, "port": port}
    given = {name: value for name, value in flags.items() if value is not None}
    settings = edge.settings.model_copy(update=given)
    check_bind(settings)
    app = create_app(edge.services, settings)
    with _listen(settings) as listener:
        click.echo(f"serving on {_url(settings, listener)} (stop with Ctrl-C)")
        config = uvicorn.Config(
            app,
            log_level=settings.log_level.lower(),
            log_config=None,  # logging is set up already
            access_log=False,
            server_header=False,
            ws="none",
            timeout_graceful_shutdown=SHUTDOWN_S,
        )
        server = uvicorn.Server(config)
        try:
            server.run(sockets=[listener])
        except KeyboardInterrupt:  # the usual way to end it; uvicorn has shut down cleanly
            return 0
    return 0 if server.started else 1


def _listen(settings: "Settings") -> socket.socket:
    """Bind the address now, so that a taken port is a clear message and port 0 has a number."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    # Named as TCP because asyncio sends small pieces at once only on sockets that are: without,
    # each token of a stream and each small reply waits 40 ms for the other side's acknowledgement.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((settings.host.strip("[]"), settings.port))
        listener.listen(BACKLOG)
    except OSError as exc:
        listener.close()
        hint = (
            "it is taken; choose another with --port"
            if exc.errno == errno.EADDRINUSE
            else f"{exc.strerror or exc}; check --host and --port"
        )
        raise KBError(f"cannot listen on {settings.host}:{settings.port}: {hint}") from exc
    return listener


def _url(settings: "Settings", listener: socket.socket) -> str:
    host = settings.host.strip("[]")
    shown = f"[{host}]" if ":" in host else host
    return f"http://{shown}:{listener.getsockname()[1]}/"
