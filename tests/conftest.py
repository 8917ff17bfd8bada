"""What every test gets: no network, no models from a hub, and never the user's own data.

The network is closed by an audit hook, which sees every connection that Python code in this
process makes, whatever library makes it. Programs that tests start inherit the environment
below instead: model hubs are off, and proxies point to a closed port.
"""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

LOOPBACK = ("127.", "::1", "localhost")

# Timings of a busy machine are no failures. In CI the examples are the same in every run.
settings.register_profile(
    "quiet",
    deadline=None,
    derandomize=bool(os.environ.get("CI")),
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("quiet")


class NetworkBlockedError(RuntimeError):
    """A test tried to leave the machine."""


def _block_network(event: str, arguments: tuple[Any, ...]) -> None:
    if event in ("socket.connect", "socket.sendto"):
        address = arguments[1]
        # AF_UNIX addresses are strings or bytes; the internet families give tuples.
        host = address[0] if isinstance(address, tuple) else None
    elif event in ("socket.getaddrinfo", "socket.gethostbyname"):
        host = arguments[0]
    else:
        return
    if isinstance(host, bytes):
        host = host.decode()
    if host and not host.startswith(LOOPBACK):
        raise NetworkBlockedError(f"tests run offline, but {event} was called for {host!r}")


def pytest_configure() -> None:
    """Close the network and forget the user's settings before any module is collected."""
    sys.addaudithook(_block_network)
    for name in [name for name in os.environ if name.startswith("KB_")]:
        del os.environ[name]
    os.environ.update(
        HF_HUB_OFFLINE="1",
        TRANSFORMERS_OFFLINE="1",
        HTTP_PROXY="http://127.0.0.1:9",
        HTTPS_PROXY="http://127.0.0.1:9",
        NO_PROXY="127.0.0.1,localhost,::1",
        http_proxy="http://127.0.0.1:9",
        https_proxy="http://127.0.0.1:9",
        no_proxy="127.0.0.1,localhost,::1",
    )


@pytest.fixture(autouse=True, scope="session")
def _no_user_data(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Give code that asks for the default data folder an empty one of this run."""
    os.environ["KB_HOME"] = str(tmp_path_factory.mktemp("kb-home"))
    yield
    del os.environ["KB_HOME"]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """An empty data folder of this test's own."""
    folder = tmp_path / "kb-home"
    folder.mkdir()
    return folder
