"""Health, readiness, metrics, and who answers."""

import re
import time
from collections.abc import Callable, Sequence

import pytest
from fastapi.testclient import TestClient

from api.app import create_app
from api.metrics import Metrics
from ingest.fake import FakeEmbedder
from kb import __version__
from kb.errors import EmbedderError
from kb.protocols import Vectors
from kb.wiring import Services


class MissingEmbedder(FakeEmbedder):
    def embed_array(self, texts: Sequence[str]) -> Vectors:
        raise EmbedderError("the weights are gone; install the package again")


def test_health_needs_nothing(client: TestClient) -> None:
    reply = client.get("/health")

    assert (reply.status_code, reply.json()) == (200, {"status": "ok"})


def test_the_server_becomes_ready(client: TestClient) -> None:
    deadline = time.monotonic() + 10
    while (reply := client.get("/ready")).status_code != 200:
        assert reply.status_code == 503
        assert int(reply.headers["retry-after"]) > 0
        assert time.monotonic() < deadline
        time.sleep(0.02)

    assert reply.json() == {"status": "ready"}


def test_a_server_without_its_embedder_is_up_but_not_ready(
    open_services: Callable[..., Services],
) -> None:
    services = open_services()
    services.embedder = MissingEmbedder()
    with TestClient(create_app(services), base_url="http://127.0.0.1") as client:
        deadline = time.monotonic() + 10
        while "weights" not in (reply := client.get("/ready")).text:
            assert time.monotonic() < deadline
            time.sleep(0.02)

        assert reply.status_code == 503
        assert reply.json()["error"]["type"] == "NotReadyError"
        assert client.get("/health").status_code == 200
        assert client.get("/kb").status_code == 200


def test_info_says_who_answers_and_how_to_install_a_model(client: TestClient) -> None:
    info = client.get("/info").json()

    assert info["version"] == __version__
    assert info["answerer"]["model"] == "extractive"
    assert re.search("[\u4e00-\u9fff]", info["answerer"]["note_zh"])
    assert info["answerer"]["note_en"].isascii()
    for note in ("note_zh", "note_en"):
        assert "kb model pull chatglm3-6b" in info["answerer"][note]


SAMPLE = re.compile(r'[a-z_]+(\{([a-z]+="([^"\\\n]|\\.)*",?)*\})? -?[0-9.e+-]+')


def test_metrics_are_what_prometheus_reads(client: TestClient, handbook: str) -> None:
    client.post(f"/kb/{handbook}/ask", json={"question": "年假几天?"})
    client.get("/kb/secret-name")
    client.get("/kb/other-secret")
    client.request("BREW", "/coffee")

    reply = client.get("/metrics")

    assert reply.headers["content-type"].startswith("text/plain; version=0.0.4")
    for line in reply.text.splitlines():
        assert line.startswith(("# HELP ", "# TYPE ")) or SAMPLE.fullmatch(line), line
    assert 'kb_http_requests_total{method="GET",route="/kb/{kb}",status="404"} 2' in reply.text
    assert 'route="unmatched"' in reply.text
    assert 'method="other"' in reply.text
    assert "secret" not in reply.text
    assert "kb_ask_duration_seconds_count 1" in reply.text
    assert "kb_documents 2" in reply.text
    assert re.search(r"^kb_chunks [1-9]", reply.text, re.MULTILINE)
    assert "kb_jobs_running 0" in reply.text


def test_the_buckets_of_the_histogram_add_up() -> None:
    metrics = Metrics()
    for seconds in (0.01, 0.2, 3.0, 1000.0):
        metrics.time_ask(seconds)

    text = metrics.render({})

    counts = [int(n) for n in re.findall(r'_bucket\{le="[^"]+"\} (\d+)', text)]
    assert counts == sorted(counts)
    assert counts[0] == 1
    assert counts[-2:] == [3, 4]
    assert "kb_ask_duration_seconds_sum 1003.21" in text


@pytest.mark.parametrize("odd", ['a"b', "a\\b", "a\nb"])
def test_odd_labels_are_escaped(odd: str) -> None:
    metrics = Metrics()
    metrics.count_request("GET", odd, 200)

    [line] = [x for x in metrics.render({}).splitlines() if x.startswith("kb_http")]

    assert SAMPLE.fullmatch(line), line
