"""Who may call: every route with and without the key, foreign hosts and pages, open addresses."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient

from api.app import ROUTERS, create_app
from api.security import AccessRules, check_bind, is_loopback, refusal
from kb.config import Settings
from kb.errors import ConfigError
from kb.wiring import Services

KEY = "schlüssel-钥匙-9f86d081884c7d65"
OPEN = {("GET", "/"), ("HEAD", "/"), ("GET", "/health"), ("GET", "/ready")}
IDS = {"kb": "0" * 32, "document": "1" * 32, "job": "2" * 32, "trace": "3" * 32}


@pytest.fixture
def client(shared: Any) -> TestClient:
    opened: TestClient = shared.client
    return opened


@pytest.fixture
def locked(open_services: Callable[..., Services]) -> Iterator[TestClient]:
    app = create_app(open_services(api_key=KEY))
    with TestClient(app, base_url="http://127.0.0.1") as client:
        yield client


def templates() -> list[tuple[str, str]]:
    """Return (method, path template) of every route."""
    return sorted(
        (method, route.path)
        for router in ROUTERS
        for route in router.routes
        if isinstance(route, APIRoute)
        for method in route.methods
    )


ROUTES = [(method, path.format(**IDS)) for method, path in templates()]


def bearer(key: str) -> dict[str, bytes]:
    return {"Authorization": f"Bearer {key}".encode()}


def test_every_documented_route_exists() -> None:
    assert set(templates()) >= {
        ("GET", "/kb"), ("POST", "/kb"),
        ("GET", "/kb/{kb}"), ("PATCH", "/kb/{kb}"), ("DELETE", "/kb/{kb}"),
        ("POST", "/kb/{kb}/documents"), ("GET", "/kb/{kb}/documents"),
        ("GET", "/kb/{kb}/documents/{document}"), ("DELETE", "/kb/{kb}/documents/{document}"),
        ("GET", "/kb/{kb}/documents/{document}/chunks"),
        ("GET", "/kb/{kb}/documents/{document}/text"),
        ("GET", "/kb/{kb}/documents/{document}/content"),
        ("GET", "/jobs/{job}"), ("GET", "/jobs/{job}/events"), ("POST", "/jobs/{job}/cancel"),
        ("POST", "/kb/{kb}/search"), ("POST", "/kb/{kb}/ask"),
        ("POST", "/v1/chat/completions"), ("GET", "/v1/models"),
        ("GET", "/"), ("POST", "/"),
        ("GET", "/health"), ("GET", "/ready"), ("GET", "/metrics"), ("GET", "/info"),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("headers", "is_let_in"),
    [
        ({}, False),
        (bearer("wrong"), False),
        (bearer(KEY[:-1]), False),
        (bearer(KEY + "x"), False),
        (bearer(""), False),
        ({"Authorization": f"Basic {KEY}".encode()}, False),
        ({"Authorization": KEY.encode()}, False),
        ({"X-API-Key": b"wrong"}, False),
        ({"Cookie": f"key={KEY}".encode()}, False),
        (bearer(KEY), True),
        ({"Authorization": f"bearer  {KEY} ".encode()}, True),
        ({"X-API-Key": KEY.encode()}, True),
    ],
)
def test_the_key_opens_every_route_and_nothing_else_does(
    locked: TestClient, headers: dict[str, bytes], is_let_in: bool
) -> None:
    for method, path in [*ROUTES, ("GET", "/openapi.json"), ("GET", "/nowhere")]:
        status = locked.request(method, path, headers=headers).status_code

        if is_let_in or (method, path) in OPEN:
            assert status != 401, (method, path)
        else:
            assert status == 401, (method, path)


def test_a_refusal_says_how_to_send_the_key_and_not_what_it_is(locked: TestClient) -> None:
    reply = locked.get("/kb", headers=bearer("wrong"))

    assert reply.headers["www-authenticate"] == "Bearer"
    assert reply.json()["error"]["type"] == "UnauthorizedError"
    assert "Bearer KEY" in reply.json()["error"]["message"]
    assert KEY not in reply.text


def test_a_key_in_the_query_is_no_key(locked: TestClient) -> None:
    assert locked.get("/kb", params={"key": KEY, "api_key": KEY}).status_code == 401


def test_the_page_is_open_so_that_it_can_ask_for_the_key(locked: TestClient) -> None:
    assert locked.get("/static/nothing.js").status_code == 404
    assert locked.get("/health").status_code == 200
    assert locked.post("/static/nothing.js").status_code == 401


@pytest.mark.parametrize(
    "path", ["/static/../kb", "/static/%2e%2e/kb", "/%2Fkb", "/kb/", "/health/"]
)
def test_no_spelling_of_a_path_avoids_the_key(locked: TestClient, path: str) -> None:
    reply = locked.get(path, follow_redirects=True)

    assert reply.status_code in (401, 404)
    assert "kbs" not in reply.text


@pytest.mark.parametrize(
    ("host", "is_let_in"),
    [
        ("127.0.0.1", True),
        ("127.0.0.1:8000", True),
        ("localhost", True),
        ("LOCALHOST:8000", True),
        ("[::1]:8000", True),
        ("evil.example", False),
        ("127.0.0.1.evil.example", False),
        ("localhost.evil.example", False),
        ("192.168.1.7", False),
        ("0.0.0.0", False),
        ("", False),
        ("localhost@evil.example", False),
        ("evil.example/localhost", False),
        ("localhost:notaport", False),
        ("[::1", False),
    ],
)
@pytest.mark.parametrize(("method", "path"), [("GET", "/kb"), ("GET", "/"), ("POST", "/kb")])
def test_only_names_of_this_machine_are_answered_to(
    client: TestClient, host: str, is_let_in: bool, method: str, path: str
) -> None:
    status = client.request(method, path, headers={"Host": host}).status_code

    assert (status != 403) is is_let_in


@pytest.mark.parametrize(
    ("headers", "is_let_in"),
    [
        ({}, True),  # curl and scripts send no Origin
        ({"Origin": "http://127.0.0.1:8000"}, True),
        ({"Origin": "https://127.0.0.1:8000", "Sec-Fetch-Site": "same-origin"}, True),
        ({"Origin": "http://127.0.0.1:3000"}, False),  # another program's page on this machine
        ({"Origin": "http://localhost:8000"}, False),
        ({"Origin": "http://evil.example"}, False),
        ({"Origin": "http://evil.example:8000"}, False),
        ({"Origin": "null"}, False),
        ({"Origin": ""}, False),
        ({"Origin": "http://127.0.0.1:bad"}, False),
        ({"Sec-Fetch-Site": "cross-site"}, False),
        ({"Sec-Fetch-Site": "same-site"}, False),
    ],
)
def test_only_our_own_page_may_change_anything(
    client: TestClient, headers: dict[str, str], is_let_in: bool
) -> None:
    at_port = {"Host": "127.0.0.1:8000"} | headers

    for method, path in ROUTES:
        status = client.request(method, path, headers=at_port).status_code

        changes = method not in ("GET", "HEAD")
        assert (status == 403) is (changes and not is_let_in), (method, path)


def test_a_page_elsewhere_is_given_no_leave_to_read(client: TestClient) -> None:
    asked = {"Origin": "http://evil.example", "Access-Control-Request-Method": "GET"}

    for reply in (client.get("/kb", headers=asked), client.options("/kb", headers=asked)):
        assert not [name for name in reply.headers if name.startswith("access-control")]


def test_without_a_key_other_machines_are_refused_whatever_host_they_name(app: FastAPI) -> None:
    scope = {
        "type": "http", "method": "GET", "path": "/kb", "headers": [(b"host", b"localhost")],
        "server": ("192.168.1.7", 8000), "client": ("192.168.1.8", 5000),
    }  # fmt: skip
    open_rules = AccessRules(host="0.0.0.0", key=None)

    refused = refusal(scope, open_rules)

    assert refused is not None
    assert refused.type == "ForbiddenAddressError"
    assert refusal(scope | {"server": ("127.0.0.1", 8000)}, open_rules) is None
    assert refusal(scope | {"server": ("/run/kb.sock", None)}, open_rules) is None


def test_bound_to_all_addresses_with_a_key_any_host_name_is_served() -> None:
    scope = {
        "type": "http", "method": "GET", "path": "/kb", "server": ("192.168.1.7", 8000),
        "headers": [(b"host", b"kb.office.lan"), (b"x-api-key", b"k")],
    }  # fmt: skip

    assert refusal(scope, AccessRules(host="0.0.0.0", key="k")) is None
    assert refusal(scope, AccessRules(host="192.168.1.7", key="k")) is not None


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.7", "kb.office.lan", ""])
def test_serving_other_machines_needs_a_key(home: Path, host: str) -> None:
    with pytest.raises(ConfigError, match="KB_API_KEY"):
        check_bind(Settings(home=home, host=host))
    with pytest.raises(ConfigError, match="KB_API_KEY"):
        check_bind(Settings(home=home, host=host, api_key=""))
    check_bind(Settings(home=home, host=host, api_key="k"))


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "localhost", "::1", "[::1]"])
def test_serving_this_machine_needs_no_key(home: Path, host: str) -> None:
    assert is_loopback(host)
    check_bind(Settings(home=home, host=host))


def test_every_reply_carries_the_safe_headers(client: TestClient) -> None:
    for path in ("/kb", "/nowhere", "/kb/nowhere", "/health", "/static/nothing"):
        headers = client.get(path).headers

        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert "default-src 'self'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]


def test_ids_are_random_and_long(client: TestClient) -> None:
    ids = [client.post("/kb", json={"name": f"base {i}"}).json()["id"] for i in range(20)]

    assert len(set(ids)) == 20
    assert all(len(id_) == 32 for id_ in ids)
    assert len({id_[:4] for id_ in ids}) > 15
