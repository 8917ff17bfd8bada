"""`kb serve` as a process: it serves, refuses to be open to all, and stops cleanly."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

ROOT = Path(__file__).resolve().parents[2]
# As `kb serve`, with the fake embedder: the real one takes seconds to load.
SERVE = """
import sys
from ingest.fake import FakeEmbedder
from kb.cli.edge import Edge
from kb.cli.main import run
from kb.config import load_settings
from kb.wiring import Services

settings, _ = load_settings()
edge = Edge({}, Services.open(settings, embedder=FakeEmbedder()))
sys.exit(run(["serve", *sys.argv[1:]], edge))
"""


@contextmanager
def running(home: Path, *arguments: str, **variables: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", SERVE, *arguments],
        cwd=ROOT,
        env=os.environ | {"KB_HOME": str(home)} | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def url_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    line = process.stdout.readline()
    found = re.search(r"http://\S+", line)
    assert found, (line, process.stderr.read() if process.stderr else "")
    return found[0]


def get(url: str, **headers: str) -> httpx.Response:
    with httpx.Client(trust_env=False, headers=headers) as client:
        for _ in range(100):
            try:
                return client.get(url)
            except httpx.ConnectError:
                time.sleep(0.05)
    raise AssertionError("the server did not answer")


@pytest.mark.slow
@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_it_prints_its_address_serves_and_stops(home: Path, stop: signal.Signals) -> None:
    with running(home, "--port", "0") as process:
        url = url_of(process)
        health = get(f"{url}health")
        process.send_signal(stop)
        code = process.wait(20)
        _, errors = process.communicate()

    assert url.startswith("http://127.0.0.1:")
    assert health.json() == {"status": "ok"}
    assert code == (0 if stop is signal.SIGINT else -stop)
    assert errors == ""


@pytest.mark.slow
def test_small_replies_are_not_held_back(home: Path) -> None:
    """Replies once waited 40 ms each for an acknowledgement, since Nagle's algorithm was on."""
    with running(home, "--port", "0") as process:
        url = url_of(process)
        get(f"{url}health")
        with httpx.Client(trust_env=False) as client:
            waits = []
            for _ in range(40):
                started = time.perf_counter()
                client.get(f"{url}health")
                waits.append(time.perf_counter() - started)

    assert sorted(waits)[len(waits) // 4] < 0.03


@pytest.mark.slow
def test_an_open_address_without_a_key_is_refused(home: Path) -> None:
    with running(home, "--host", "0.0.0.0", "--port", "0") as process:
        code = process.wait(20)
        output, errors = process.communicate()

    assert code == 1
    assert output == ""
    assert "KB_API_KEY" in errors
    assert len(errors.splitlines()) == 1


@pytest.mark.slow
def test_an_open_address_with_a_key_asks_for_it(home: Path) -> None:
    key = "a-long-random-key"
    with running(home, "--host", "0.0.0.0", "--port", "0", KB_API_KEY=key) as process:
        url = url_of(process).replace("0.0.0.0", "127.0.0.1")

        assert get(f"{url}kb").status_code == 401
        assert get(f"{url}kb", **{"X-API-Key": key}).status_code == 200
        assert get(f"{url}kb", **{"X-API-Key": key, "Host": "kb.lan"}).status_code == 200


@pytest.mark.slow
def test_a_taken_port_is_one_clear_line(home: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        with running(home, "--port", port) as process:
            code = process.wait(20)
            _, errors = process.communicate()

    assert code == 1
    assert f"127.0.0.1:{port}" in errors
    assert "--port" in errors
    assert len(errors.splitlines()) == 1
