"""Jobs over HTTP: live progress, cancelling, many files, and a server that comes back."""

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from api.app import create_app
from ingest.fake import FakeEmbedder
from kb.protocols import Vectors
from kb.wiring import Services

Serve = Callable[[FastAPI], Any]
Wait = Callable[..., dict[str, Any]]


class GatedEmbedder(FakeEmbedder):
    """A fake that waits at its gate once documents are to be embedded, 128 strings at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()
        self.reached = threading.Event()

    def embed_array(self, texts: Sequence[str]) -> Vectors:
        if list(texts) != ["ready"]:  # the server's own warm-up
            self.reached.set()
            assert self.gate.wait(60), "the test left the gate closed"
        return super().embed_array(texts)


@pytest.fixture
def gated(open_services: Callable[..., Services]) -> Iterator[tuple[Services, GatedEmbedder]]:
    services = open_services()
    embedder = GatedEmbedder()
    services.embedder = embedder
    yield services, embedder
    embedder.gate.set()


def post_files(client: httpx.Client, kb: str, files: dict[str, str], **query: Any) -> str:
    parts = [("files", (path, text.encode())) for path, text in files.items()]
    reply = client.post(f"/kb/{kb}/documents", files=parts, params=query, timeout=120)
    assert reply.status_code == 202, reply.text
    job_id: str = reply.json()["job"]["id"]
    return job_id


def events_of(client: httpx.Client, job_id: str) -> list[tuple[str, dict[str, Any]]]:
    events, name = [], ""
    with client.stream("GET", f"/jobs/{job_id}/events") as reply:
        assert reply.headers["content-type"].startswith("text/event-stream")
        for line in reply.iter_lines():
            if line.startswith("event: "):
                name = line.removeprefix("event: ")
            elif line.startswith("data: "):
                events.append((name, json.loads(line.removeprefix("data: "))))
    return events


def test_progress_is_streamed_until_the_job_is_finished(
    gated: tuple[Services, GatedEmbedder], serve: Serve
) -> None:
    services, embedder = gated
    live = serve(create_app(services))
    live.client.post("/kb", json={"name": "base"})
    files = {f"{i}.md": f"# 第 {i} 章\n\n内容 {i}。" for i in range(5)} | {"bad.xyz": "x"}
    job_id = post_files(live.client, "base", files)
    assert embedder.reached.wait(30)

    threading.Timer(1.0, embedder.gate.set).start()
    events = events_of(live.client, job_id)

    names = [name for name, _ in events]
    states = [job["state"] for _, job in events]
    assert names[-1] == "finished"
    assert set(names[:-1]) == {"progress"}
    assert states[-1] == "done"
    assert "running" in states
    done = [job["progress"]["files_done"] for _, job in events]
    assert done == sorted(done)
    assert done[-1] == events[-1][1]["progress"]["files_total"] == 6
    assert events[-1][1] == live.client.get(f"/jobs/{job_id}").json()


def test_the_events_of_a_finished_job_are_its_end(
    serve: Serve, app: FastAPI, wait_for_job: Wait
) -> None:
    live = serve(app)
    live.client.post("/kb", json={"name": "base"})
    job_id = post_files(live.client, "base", {"a.md": "text"})
    job = wait_for_job(live.client, job_id)

    assert events_of(live.client, job_id) == [("finished", job)]


def test_an_upload_can_be_cancelled_over_http(
    gated: tuple[Services, GatedEmbedder], serve: Serve, wait_for_job: Wait
) -> None:
    services, embedder = gated
    live = serve(create_app(services))
    live.client.post("/kb", json={"name": "base"})
    running = post_files(live.client, "base", {f"{i}.md": f"Text {i}." for i in range(130)})
    waiting = post_files(live.client, "base", {"later.md": "Later."})
    assert embedder.reached.wait(60)

    at_once = live.client.post(f"/jobs/{waiting}/cancel").json()
    asked = live.client.post(f"/jobs/{running}/cancel").json()
    threading.Timer(1.2, embedder.gate.set).start()
    ended = wait_for_job(live.client, running)
    again = live.client.post(f"/jobs/{running}/cancel")

    assert at_once["state"] == "cancelled"
    assert asked["state"] == "running"
    assert ended["state"] == "cancelled"
    assert (again.status_code, again.json()["state"]) == (200, "cancelled")


def test_deleting_the_knowledge_base_ends_the_stream_of_its_job(
    gated: tuple[Services, GatedEmbedder], serve: Serve
) -> None:
    services, embedder = gated
    live = serve(create_app(services))
    kb = live.client.post("/kb", json={"name": "base"}).json()["id"]
    job_id = post_files(live.client, "base", {"a.md": "text"})
    assert embedder.reached.wait(60)
    threading.Timer(0.5, lambda: httpx.delete(f"{live.url}/kb/{kb}", trust_env=False)).start()

    events = events_of(live.client, job_id)
    embedder.gate.set()

    assert events[-1][0] == "error"
    assert events[-1][1]["type"] == "JobNotFoundError"


def test_a_server_that_stops_midway_finishes_the_job_when_it_is_back(
    gated: tuple[Services, GatedEmbedder],
    open_services: Callable[..., Services],
    serve: Serve,
    wait_for_job: Wait,
) -> None:
    services, embedder = gated
    first = serve(create_app(services))
    first.client.post("/kb", json={"name": "base"})
    files = {f"{i}.md": f"# 第 {i} 章\n\n内容 {i}。" for i in range(130)}
    job_id = post_files(first.client, "base", files)
    assert embedder.reached.wait(60)

    first.server.should_exit = True
    threading.Timer(0.5, embedder.gate.set).start()
    second = serve(create_app(open_services()))
    job = wait_for_job(second.client, job_id)

    assert job["state"] == "done"
    assert {file["state"] for file in job["files"]} == {"done"}
    assert second.client.get("/kb/base").json()["documents"] == 130


@pytest.mark.slow
def test_ten_thousand_files_in_one_upload(app: FastAPI, serve: Serve) -> None:
    live = serve(app)
    live.client.post("/kb", json={"name": "base"})
    files = {f"drop/{i // 100}/{i}.txt": f"File number {i}." for i in range(10_000)}

    job_id = post_files(live.client, "base", files, root="drop", prune=True)
    live.client.post(f"/jobs/{job_id}/cancel")
    job = live.client.get(f"/jobs/{job_id}").json()

    assert len(job["files"]) == 10_000
    assert job["progress"]["files_total"] == 10_000


def test_only_the_failed_files_of_a_job_are_tried_again(app: FastAPI, serve: Serve) -> None:
    live = serve(app)
    live.client.post("/kb", json={"name": "base"})
    first = post_files(live.client, "base", {"good.md": "# 好\n\n内容。", "bad.xyz": "x"})
    events_of(live.client, first)

    reply = live.client.post(f"/jobs/{first}/retry")

    assert reply.status_code == 202, reply.text
    again = reply.json()["job"]
    assert [file["path"] for file in again["files"]] == ["bad.xyz"]
    _, last = events_of(live.client, again["id"])[-1]
    assert (last["state"], last["files"][0]["state"]) == ("done", "failed")
    assert live.client.get("/kb/base/documents").json()["total"] == 2


def test_a_job_without_failures_cannot_be_tried_again(app: FastAPI, serve: Serve) -> None:
    live = serve(app)
    live.client.post("/kb", json={"name": "base"})
    done = post_files(live.client, "base", {"good.md": "# 好\n\n内容。"})
    events_of(live.client, done)

    reply = live.client.post(f"/jobs/{done}/retry")

    assert reply.status_code == 422, reply.text
    assert "no failed files" in reply.json()["error"]["message"]
    assert live.client.post(f"/jobs/{'0' * 32}/retry").status_code == 404
