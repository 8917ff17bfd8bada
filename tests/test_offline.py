"""The guard in conftest.py itself: tests reach this machine and nothing else."""

import socket
import urllib.error
import urllib.request

import pytest


def test_a_connection_to_another_machine_is_refused() -> None:
    # 192.0.2.1 is reserved for documentation (RFC 5737); no machine has it.
    with pytest.raises(RuntimeError, match="tests run offline"):
        socket.create_connection(("192.0.2.1", 80), timeout=1)


def test_a_name_is_not_even_looked_up() -> None:
    with pytest.raises(RuntimeError, match="tests run offline"):
        socket.getaddrinfo("example.com", 443)


def test_a_library_that_obeys_proxies_ends_at_a_closed_port() -> None:
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen("http://example.com/", timeout=5)


def test_a_server_on_this_machine_is_reached() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname(), timeout=5) as client,
    ):
        assert client.getpeername() == server.getsockname()
