"""A server over an empty data folder, with the fake embedder, and two kinds of clients.

`client` runs the application in this process: for everything that is one request and one reply.
`live` is a real server on a loopback port: for streams, disconnects and large uploads. `shared`
is one server for all tests that do not mind each other.
"""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi import FastAPI
from fastapi.testclient import TestClient

from api.app import create_app
from ingest.fake import FakeEmbedder
from ingest.parser import ParseLimits, Parser
from kb.config import Settings
from kb.wiring import Services

DOCUMENTS = {
    "handbook": "# 员工手册\n\n## 年假\n\n正式员工每年享有 15 天带薪年假。"
    "入职未满一年的员工按月折算。\n\n## 报销\n\n差旅报销应在返回后 10 个工作日内提交。\n",
    "manual": "# Pump manual\n\n## Start\n\nOpen valve V3 before the pump starts. "
    "The pump must not run dry for more than 20 seconds.\n\n"
    "## Service\n\nReplace the seal every 4000 hours.\n",
}

# Any local name; starlette's own default, "testserver", is not one of ours and is refused.
BASE_URL = "http://127.0.0.1"


@pytest.fixture(scope="session")
def parser() -> Iterator[Parser]:
    """One warm parser for all tests here: its child takes seconds to start."""
    with Parser(
        ParseLimits(
            timeout_s=30,
            memory_mb=2048,
            max_file_mb=10,
            max_pages=100,
            max_cells=1000,
            max_text_chars=1_000_000,
        )
    ) as warm:
        yield warm


@pytest.fixture
def open_services(home: Path, parser: Parser) -> Iterator[Callable[..., Services]]:
    """Open services over the test's data folder; keywords are settings."""
    opened: list[Services] = []

    def open_(chat_model: Any = None, **values: Any) -> Services:
        settings = Settings(**({"home": home} | values))
        services = Services.open(settings, embedder=FakeEmbedder(), chat_model=chat_model)
        services.__dict__["parser"] = parser  # where the cached property keeps its own
        opened.append(services)
        return services

    yield open_
    for services in opened:
        del services.__dict__["parser"]
        services.close()


@pytest.fixture
def services(open_services: Callable[..., Services]) -> Services:
    return open_services()


@pytest.fixture
def app(services: Services) -> FastAPI:
    return create_app(services)


@pytest.fixture
def client(app: FastAPI) -> Iterator[TestClient]:
    with TestClient(app, base_url=BASE_URL) as opened:
        yield opened


Upload = Callable[..., dict[str, Any]]


@pytest.fixture
def upload(client: TestClient) -> Upload:
    """Upload ``{path: text or bytes}`` and wait for the job; returns the finished job."""

    def do(kb: str, files: dict[str, str | bytes], **query: Any) -> dict[str, Any]:
        parts = [("files", (path, content)) for path, content in files.items()]
        reply = client.post(f"/kb/{kb}/documents", files=parts, params=query)
        assert reply.status_code == 202, reply.text
        return wait_for_job(client, reply.json()["job"]["id"])

    return do


@pytest.fixture
def handbook(client: TestClient, upload: Upload) -> str:
    """The id of a knowledge base with a Chinese and an English document."""
    kb: str = client.post("/kb", json={"name": "手册"}).json()["id"]
    job = upload(kb, {f"{name}.md": text for name, text in DOCUMENTS.items()})
    assert job["state"] == "done", job
    return kb


def wait_for_job(client: Any, job_id: str, timeout_s: float = 60) -> dict[str, Any]:
    deadline = time.monotonic() + timeout_s
    while True:
        job: dict[str, Any] = client.get(f"/jobs/{job_id}").json()
        if job["state"] not in ("queued", "running"):
            return job
        assert time.monotonic() < deadline, job
        time.sleep(0.05)


@pytest.fixture(name="wait_for_job")
def _wait_for_job() -> Callable[..., dict[str, Any]]:
    return wait_for_job


@dataclass
class LiveServer:
    """A server in a thread of its own; `client` talks to it over a socket."""

    url: str
    client: httpx.Client
    server: uvicorn.Server


@contextmanager
def running(app: FastAPI, **options: Any) -> Iterator[LiveServer]:
    # As `kb serve` does: a socket that is not named as TCP delays small pieces by 40 ms.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    server = uvicorn.Server(
        uvicorn.Config(
            app, log_config=None, access_log=False, timeout_graceful_shutdown=2, **options
        )
    )
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    deadline = time.monotonic() + 20
    while not server.started:
        assert thread.is_alive(), "the server did not start"
        assert time.monotonic() < deadline, "the server did not start in time"
        time.sleep(0.01)
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    try:
        with httpx.Client(base_url=url, timeout=30, trust_env=False) as client:
            yield LiveServer(url, client, server)
    finally:
        server.should_exit = True
        thread.join(30)
    assert not thread.is_alive(), "the server did not stop"


@pytest.fixture
def serve() -> Iterator[Callable[[FastAPI], LiveServer]]:
    """Start any number of live servers; all are stopped at the end of the test."""
    with ExitStack() as stack:
        yield lambda app: stack.enter_context(running(app))


@pytest.fixture
def live(app: FastAPI, serve: Callable[[FastAPI], LiveServer]) -> LiveServer:
    return serve(app)


@dataclass
class Shared:
    """One server for all tests that leave it as it is, or only add to it.

    `client` runs it in this process, `real` talks to it over a socket; `handbook` is the id of
    a knowledge base with two documents that nobody changes.
    """

    services: Services
    client: TestClient
    real: httpx.Client
    handbook: str


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory, parser: Parser) -> Iterator[Shared]:
    with ExitStack() as stack:
        settings = Settings(home=tmp_path_factory.mktemp("shared"))
        services = Services.open(settings, embedder=FakeEmbedder())
        services.__dict__["parser"] = parser
        stack.callback(services.close)
        stack.callback(services.__dict__.pop, "parser")
        app = create_app(services)
        client = stack.enter_context(TestClient(app, base_url=BASE_URL))
        real = stack.enter_context(running(app, lifespan="off")).client
        kb = client.post("/kb", json={"name": "手册"}).json()["id"]
        files = [("files", (f"{name}.md", text)) for name, text in DOCUMENTS.items()]
        job = client.post(f"/kb/{kb}/documents", files=files).json()["job"]
        assert wait_for_job(client, job["id"])["state"] == "done"
        yield Shared(services, client, real, kb)
