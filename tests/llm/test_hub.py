"""Downloads against a real HTTP server that behaves as badly as the test asks it to."""

import fcntl
import hashlib
import io
import json
import re
import shutil
import subprocess
import sys
import threading
import time
from collections import namedtuple
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.request import Request

import pytest

from ingest.installed import InstalledEmbedders
from kb.cli.edge import Edge
from kb.cli.main import run
from kb.config import Settings
from llm import download
from llm.download import RemoteFile
from llm.errors import DownloadError
from llm.hub import KNOWN_MODELS, LOCK_NAME, Source, choose_files, pull
from tests.ingest.checkpoints import make_embedder

MODEL = "chatglm3-6b"
WEIGHTS = "pytorch_model.bin"
VOCABULARY = "tokenizer.model"
SMALL = {
    "config.json": b'{"model_type": "chatglm"}',
    "tokenizer_config.json": b"{}",
    "tokenization_chatglm.py": "# 只读，不执行\nraise SystemExit('never run')\n".encode(),
    VOCABULARY: b"v" * 2000,
}
WHOLE = SMALL | {WEIGHTS: bytes(range(256)) * 256}  # 64 KiB


@dataclass
class Hub:
    """What the server has and how it behaves. The handler reads it anew for each request."""

    files: dict[str, bytes] = field(default_factory=lambda: dict(WHOLE))
    listed: dict[str, bytes] = field(default_factory=dict)  # where the list says something else
    paths: list[str] = field(default_factory=list)  # listed besides
    has_digests: bool = True
    knows_ranges: bool = True
    knows_if_range: bool = True
    stop_after: list[int] = field(default_factory=list)  # bytes per answer for weights, then all
    stops_always_after: int | None = None
    refusals: list[tuple[int, dict[str, str]]] = field(default_factory=list)  # one per request
    files_at: str = ""  # redirect file requests there
    requests: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    url: str = ""
    before_body: Callable[[str], None] = lambda path: None

    def asked(self, path: str, header: str) -> list[str | None]:
        """Return a header of each request for a file, oldest first."""
        return [headers.get(header) for asked, headers in self.requests if asked.endswith(path)]

    def list_as(self, path: str) -> Any:
        contents = {**self.files, **self.listed}
        if path.startswith("/api/v1/"):
            return {
                "Code": 200,
                "Data": {"Files": [self._modelscope(*one) for one in contents.items()]},
            }
        entries = [self._huggingface(*one) for one in contents.items()]
        folders = [{"type": "directory", "path": "figures", "oid": "0" * 40, "size": 0}]
        extra = [
            {"type": "file", "path": one, "size": 3, "oid": git_hash(b"abc")} for one in self.paths
        ]
        return [*folders, *entries, *extra]

    def _huggingface(self, name: str, body: bytes) -> dict[str, Any]:
        entry = {"type": "file", "path": name, "size": len(body), "oid": git_hash(body)}
        if name.endswith((".bin", ".safetensors", ".model")):
            digest = hashlib.sha256(body).hexdigest()
            entry["lfs"] = {"oid": digest, "size": len(body), "pointerSize": 134}
        return entry

    def _modelscope(self, name: str, body: bytes) -> dict[str, Any]:
        digest = hashlib.sha256(body).hexdigest() if self.has_digests else ""
        return {"Path": name, "Size": len(body), "Sha256": digest, "Type": "blob"}


def git_hash(body: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(body) + body).hexdigest()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def do_GET(self) -> None:
        hub = self.hub
        hub.requests.append(
            (self.path, {name.lower(): text for name, text in self.headers.items()})
        )
        self.close_connection = True
        if hub.refusals:
            status, headers = hub.refusals.pop(0)
            if status:
                self._answer(status, headers, b"no")
                return
        if self.path.startswith("/api/"):
            self._answer(200, {}, json.dumps(hub.list_as(self.path)).encode())
            return
        if hub.files_at:
            self._answer(302, {"Location": hub.files_at + self.path}, b"")
            return
        name = self.path.rpartition("/")[2]
        if name not in hub.files:
            self._answer(404, {}, b"no")
            return
        hub.before_body(name)
        self._send_file(name, hub.files[name])

    def _send_file(self, name: str, body: bytes) -> None:
        hub = self.hub
        etag = f'"{hashlib.md5(body).hexdigest()}"'
        headers, status, start = {"ETag": etag}, 200, 0
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if_range = self.headers.get("If-Range", etag) if hub.knows_if_range else etag
        if asked and hub.knows_ranges and if_range == etag:
            start = int(asked[1])
            if start >= len(body):
                self._answer(416, {"Content-Range": f"bytes */{len(body)}"}, b"")
                return
            status = 206
            headers["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
        rest = body[start:]
        sent = rest
        if name == WEIGHTS:
            limit = hub.stop_after.pop(0) if hub.stop_after else hub.stops_always_after
            sent = rest[:limit]
        self._answer(status, headers, sent, length=len(rest))

    def _answer(
        self, status: int, headers: dict[str, str], body: bytes, length: int | None = None
    ) -> None:
        self.send_response(status)
        for name, text in headers.items():
            self.send_header(name, text)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Keep the test's output clean."""


@pytest.fixture
def start_hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], Hub]]:
    monkeypatch.setattr(download, "BACKOFF_S", 0.001)
    with ExitStack() as stack:

        def start() -> Hub:
            hub = Hub()
            handler = type("HubHandler", (Handler,), {"hub": hub})
            server = stack.enter_context(ThreadingHTTPServer(("127.0.0.1", 0), handler))
            thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
            thread.start()
            stack.callback(thread.join)
            stack.callback(server.shutdown)
            hub.url = f"http://127.0.0.1:{server.server_port}"
            return hub

        yield start


@pytest.fixture
def hub(start_hub: Callable[[], Hub]) -> Hub:
    return start_hub()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "checkpoints" / MODEL


def contents(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir() if not p.name.startswith(".pull.")}


def stop_in_the_middle(hub: Hub, folder: Path, after: int = 20_000, **options: Any) -> None:
    """Leave `folder` as a line that died for good would: all but the end of the weights."""
    hub.stop_after = [after, 0, 0, 0]
    with pytest.raises(DownloadError, match=f"the line broke after {after} of 65536 bytes"):
        pull(MODEL, folder, endpoint=hub.url, **options)
    assert (folder / f"{WEIGHTS}.part").stat().st_size == after
    assert not (folder / WEIGHTS).exists()
    hub.requests.clear()


@pytest.mark.parametrize("source", ["huggingface", "modelscope"])
def test_a_checkpoint_arrives_whole_and_progress_ends_at_the_total(
    hub: Hub, folder: Path, source: Source
) -> None:
    hub.files |= {"README.md": b"x", "modeling_chatglm.py": b"x", "training_args.bin": b"x" * 2000}
    told: list[tuple[int, int, str]] = []

    result = pull(
        MODEL, folder, source=source, endpoint=hub.url, progress=lambda *now: told.append(now)
    )

    assert result == folder
    assert contents(folder) == WHOLE
    assert told[-1] == (sum(map(len, WHOLE.values())), told[0][1], WEIGHTS)
    assert [done for done, _, _ in told] == sorted(done for done, _, _ in told)


def test_each_hub_is_asked_in_its_own_way(hub: Hub, tmp_path: Path) -> None:
    pull(MODEL, tmp_path / "a", endpoint=hub.url + "/")
    pull(MODEL, tmp_path / "b", endpoint=hub.url, source="modelscope")

    asked = [path for path, _ in hub.requests]
    assert asked[0] == "/api/models/zai-org/chatglm3-6b/tree/main?recursive=true"
    assert f"/zai-org/chatglm3-6b/resolve/main/{WEIGHTS}" in asked
    assert "/api/v1/models/ZhipuAI/chatglm3-6b/repo/files?Revision=master&Recursive=True" in asked
    assert f"/models/ZhipuAI/chatglm3-6b/resolve/master/{WEIGHTS}" in asked


def test_a_second_run_fetches_nothing(hub: Hub, folder: Path) -> None:
    pull(MODEL, folder, endpoint=hub.url)
    hub.requests.clear()
    told: list[tuple[int, int, str]] = []

    pull(MODEL, folder, endpoint=hub.url, progress=lambda *now: told.append(now))

    assert len(hub.requests) == 1
    assert told[-1][0] == told[-1][1] == sum(map(len, WHOLE.values()))


def test_files_copied_by_hand_count_when_their_digest_is_right(hub: Hub, folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / WEIGHTS).write_bytes(WHOLE[WEIGHTS])
    (folder / VOCABULARY).write_bytes(b"w" * 2000)  # the right size only

    pull(MODEL, folder, endpoint=hub.url)

    assert contents(folder) == WHOLE
    assert not hub.asked(WEIGHTS, "range")
    assert len(hub.asked(VOCABULARY, "range")) == 1


def test_a_broken_line_is_continued_from_where_it_broke(hub: Hub, folder: Path) -> None:
    hub.stop_after = [10_000, 20_000]

    pull(MODEL, folder, endpoint=hub.url)

    assert contents(folder) == WHOLE
    assert hub.asked(WEIGHTS, "range") == [None, "bytes=10000-", "bytes=30000-"]


def test_a_later_run_continues_and_asks_for_the_same_file(hub: Hub, folder: Path) -> None:
    stop_in_the_middle(hub, folder)

    pull(MODEL, folder, endpoint=hub.url)

    assert contents(folder) == WHOLE
    assert hub.asked(WEIGHTS, "range") == ["bytes=20000-"]
    etag = hashlib.md5(WHOLE[WEIGHTS]).hexdigest()
    assert hub.asked(WEIGHTS, "if-range") == [f'"{etag}"']
    assert not hub.asked(VOCABULARY, "range")


def test_another_mirror_continues_what_one_began(
    start_hub: Callable[[], Hub], hub: Hub, folder: Path
) -> None:
    stop_in_the_middle(hub, folder)
    mirror = start_hub()

    pull(MODEL, folder, endpoint=mirror.url)

    assert contents(folder) == WHOLE
    assert mirror.asked(WEIGHTS, "range") == ["bytes=20000-"]
    assert mirror.asked(WEIGHTS, "if-range") == [None]  # its ETags are its own


def test_a_server_without_ranges_starts_over(hub: Hub, folder: Path) -> None:
    hub.knows_ranges = False
    hub.stop_after = [10_000]

    pull(MODEL, folder, endpoint=hub.url)

    assert contents(folder) == WHOLE


def test_a_server_that_always_breaks_is_given_up_and_the_part_stays(hub: Hub, folder: Path) -> None:
    hub.stops_always_after = 1000

    with pytest.raises(DownloadError, match="run the same command again") as caught:
        pull(MODEL, folder, endpoint=hub.url)

    assert f"cannot fetch {WEIGHTS} from 127.0.0.1" in str(caught.value)
    assert len(hub.asked(WEIGHTS, "range")) == download.TRIES
    assert (folder / f"{WEIGHTS}.part").stat().st_size == 4000


def test_progress_earns_new_tries(hub: Hub, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "MIN_PROGRESS", 10_000)
    hub.stop_after = [10_000] * 6

    pull(MODEL, folder, endpoint=hub.url)

    assert contents(folder) == WHOLE


def test_a_refused_range_starts_over(hub: Hub, folder: Path) -> None:
    stop_in_the_middle(hub, folder)
    hub.refusals = [(0, {}), (416, {})]

    pull(MODEL, folder, endpoint=hub.url)

    assert contents(folder) == WHOLE
    assert hub.asked(WEIGHTS, "range") == ["bytes=20000-", None]


def test_a_part_that_is_too_long_is_dropped(hub: Hub, folder: Path) -> None:
    stop_in_the_middle(hub, folder)
    with (folder / f"{WEIGHTS}.part").open("ab") as part:
        part.write(b"x" * 65536)

    pull(MODEL, folder, endpoint=hub.url)

    assert contents(folder) == WHOLE
    assert hub.asked(WEIGHTS, "range") == [None]


def test_a_whole_part_is_verified_without_asking_again(hub: Hub, folder: Path) -> None:
    stop_in_the_middle(hub, folder)
    (folder / f"{WEIGHTS}.part").write_bytes(WHOLE[WEIGHTS])

    pull(MODEL, folder, endpoint=hub.url)

    assert contents(folder) == WHOLE
    assert not hub.asked(WEIGHTS, "range")


def test_a_part_of_an_older_file_is_not_continued(hub: Hub, folder: Path) -> None:
    stop_in_the_middle(hub, folder)
    hub.files[WEIGHTS] = b"new!" * 16384

    pull(MODEL, folder, endpoint=hub.url)

    assert contents(folder)[WEIGHTS] == b"new!" * 16384
    assert hub.asked(WEIGHTS, "range") == [None]


@pytest.mark.parametrize("knows_if_range", [True, False])
def test_without_digests_the_etag_says_that_a_file_changed(
    hub: Hub, folder: Path, knows_if_range: bool
) -> None:
    hub.has_digests = False
    hub.knows_if_range = knows_if_range
    stop_in_the_middle(hub, folder, source="modelscope")
    hub.files[WEIGHTS] = b"new!" * 16384

    pull(MODEL, folder, endpoint=hub.url, source="modelscope")

    assert contents(folder)[WEIGHTS] == b"new!" * 16384
    assert hub.asked(WEIGHTS, "range")[0] == "bytes=20000-"


def test_a_file_that_changes_during_the_run_is_told_by_its_digest(hub: Hub, folder: Path) -> None:
    hub.stop_after = [20_000]

    def change(name: str) -> None:
        if hub.asked(WEIGHTS, "range")[1:]:
            hub.files[WEIGHTS] = b"new!" * 16384

    hub.before_body = change

    with pytest.raises(DownloadError, match="is damaged"):
        pull(MODEL, folder, endpoint=hub.url)

    assert not list(folder.glob(f"{WEIGHTS}*"))


@pytest.mark.parametrize("name", [WEIGHTS, "config.json"])
def test_a_wrong_digest_deletes_the_file_and_names_both(hub: Hub, folder: Path, name: str) -> None:
    hub.listed[name] = b"?" * len(WHOLE[name])
    by_git = name == "config.json"
    hashed: Callable[[bytes], str] = (
        git_hash if by_git else lambda body: hashlib.sha256(body).hexdigest()
    )

    with pytest.raises(DownloadError, match=name) as caught:
        pull(MODEL, folder, endpoint=hub.url)

    assert f"is {hashed(WHOLE[name])}, expected {hashed(hub.listed[name])}" in str(caught.value)
    assert not list(folder.glob(f"{name}*"))


@pytest.mark.parametrize(
    ("status", "says"),
    [
        (401, r"refuses zai-org/chatglm3-6b \(HTTP 401\).*a token"),
        (403, r"refuses zai-org/chatglm3-6b \(HTTP 403\)"),
        (404, r"127.0.0.1 does not have zai-org/chatglm3-6b \(HTTP 404\); check the name"),
        (451, r"answered HTTP 451"),
    ],
)
def test_a_refusal_is_not_repeated_and_leaves_nothing(
    hub: Hub, folder: Path, status: int, says: str
) -> None:
    hub.refusals = [(status, {})]

    with pytest.raises(DownloadError, match=says):
        pull(MODEL, folder, endpoint=hub.url)

    assert len(hub.requests) == 1
    assert not folder.exists()


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_server_is_asked_again(hub: Hub, folder: Path, status: int) -> None:
    hub.refusals = [(status, {}), (0, {}), (status, {}), (status, {})]

    pull(MODEL, folder, endpoint=hub.url)

    assert contents(folder) == WHOLE


def test_a_short_pause_that_is_asked_for_is_kept(hub: Hub, folder: Path) -> None:
    hub.refusals = [(429, {"Retry-After": "1"})]
    started = time.monotonic()

    pull(MODEL, folder, endpoint=hub.url)

    assert time.monotonic() - started >= 1


@pytest.mark.parametrize("as_date", [False, True])
def test_a_long_pause_is_left_to_the_user(hub: Hub, folder: Path, as_date: bool) -> None:
    pause = formatdate(time.time() + 3600, usegmt=True) if as_date else "3600"
    hub.refusals = [(503, {"Retry-After": pause})]

    with pytest.raises(DownloadError, match=r"asks for a pause of 3\d\d\d s"):
        pull(MODEL, folder, endpoint=hub.url)

    assert len(hub.requests) == 1


def test_no_server_is_one_clear_line(hub: Hub, folder: Path) -> None:
    with pytest.raises(DownloadError, match="cannot fetch zai-org/chatglm3-6b from 127"):
        pull(MODEL, folder, endpoint="http://127.0.0.1:9")


def test_the_token_goes_to_the_hub_but_not_where_it_redirects(
    start_hub: Callable[[], Hub], hub: Hub, folder: Path
) -> None:
    store = start_hub()
    hub.files_at = store.url
    hub.stop_after = []
    store.stop_after = [10_000]

    pull(MODEL, folder, endpoint=hub.url, token="hf_secret")

    assert contents(folder) == WHOLE
    assert {headers.get("authorization") for _, headers in hub.requests} == {"Bearer hf_secret"}
    assert {headers.get("authorization") for _, headers in store.requests} == {None}
    assert store.asked(WEIGHTS, "range") == [None, "bytes=10000-"]


def test_the_token_survives_a_redirect_within_the_hub(hub: Hub, folder: Path) -> None:
    """A renamed repository redirects to its new name."""
    moved = f"{hub.url}/api/models/zai-org/new/tree/main"
    hub.refusals = [(307, {"Location": moved})]

    pull("THUDM/chatglm3-6b", folder, endpoint=hub.url, token="hf_secret")

    assert {headers.get("authorization") for _, headers in hub.requests} == {"Bearer hf_secret"}


def test_a_redirect_from_https_to_http_is_refused() -> None:
    request = Request("https://hub.example/a")

    with pytest.raises(DownloadError, match="without encryption"):
        download._SafeRedirects().redirect_request(
            request, io.BytesIO(), 302, "Found", {}, "http://hub.example/a"
        )


@pytest.mark.parametrize("token", ["two\nlines", "密钥", "a b"])
def test_a_token_that_would_break_the_request_is_refused(folder: Path, token: str) -> None:
    with pytest.raises(DownloadError, match="token") as caught:
        pull(MODEL, folder, endpoint="http://127.0.0.1:9", token=token)

    assert token not in str(caught.value)


@pytest.mark.parametrize(
    "endpoint",
    ["ftp://127.0.0.1", "hf-mirror.com", "http://", "http://me:pass@127.0.0.1", "http://a b"],
)
def test_an_endpoint_that_is_no_web_address_is_refused(folder: Path, endpoint: str) -> None:
    with pytest.raises(DownloadError, match="must be an address like") as caught:
        pull(MODEL, folder, endpoint=endpoint)

    assert "pass@" not in str(caught.value)


@pytest.mark.parametrize(
    "path", ["../config.json", "/etc/passwd", "a/../../b", "a\\..\\b", "C:x", "a\nb", ""]
)
def test_a_hostile_path_stops_everything(hub: Hub, folder: Path, path: str) -> None:
    hub.paths = [path]

    with pytest.raises(DownloadError, match="nothing was fetched"):
        pull(MODEL, folder, endpoint=hub.url)

    assert not folder.exists()


def test_a_list_that_is_none_is_one_clear_line(hub: Hub, folder: Path) -> None:
    hub.list_as = lambda path: {"error": "login"}  # type: ignore[method-assign]

    for source in ("huggingface", "modelscope"):
        with pytest.raises(DownloadError, match="in a form we do not know"):
            pull(MODEL, folder, endpoint=hub.url, source=source)


def test_a_full_disk_is_told_before_the_first_byte(
    hub: Hub, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**6, 10**6, 30_000))

    with pytest.raises(DownloadError, match=r"0.00 GB are needed, 0.00 GB are free"):
        pull(MODEL, folder, endpoint=hub.url)

    assert len(hub.requests) == 1
    assert not contents(folder)


def test_kept_bytes_need_no_room_again(
    hub: Hub, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_in_the_middle(hub, folder, after=60_000)
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**6, 10**6, 6000))

    pull(MODEL, folder, endpoint=hub.url)

    assert contents(folder) == WHOLE


def test_a_second_process_is_refused(hub: Hub, folder: Path) -> None:
    folder.mkdir(parents=True)
    script = (
        "import fcntl, sys; lock = open(sys.argv[1], 'a'); fcntl.flock(lock, fcntl.LOCK_EX)\n"
        "print('locked', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(folder / LOCK_NAME)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"locked\n"

        with pytest.raises(DownloadError, match="another download into"):
            pull(MODEL, folder, endpoint=hub.url)
        other.communicate()

    pull(MODEL, folder, endpoint=hub.url)
    with (folder / LOCK_NAME).open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # given back


def test_a_download_refuses_another_into_its_folder(hub: Hub, folder: Path) -> None:
    refusals = []

    def pull_again(name: str) -> None:
        with pytest.raises(DownloadError, match="another download into") as caught:
            pull(MODEL, folder, endpoint=hub.url)
        refusals.append(caught)

    hub.before_body = pull_again

    pull(MODEL, folder, endpoint=hub.url)

    assert len(refusals) == len(WHOLE)
    assert contents(folder) == WHOLE


def test_a_cancelled_download_continues_later(
    hub: Hub, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "BLOCK", 4096)
    done = 0

    def progress(now: int, total: int, file: str) -> None:
        nonlocal done
        done = now

    with pytest.raises(DownloadError, match="the same command continues"):
        pull(MODEL, folder, endpoint=hub.url, progress=progress, cancel=lambda: done > 30_000)
    kept = (folder / f"{WEIGHTS}.part").stat().st_size
    pull(MODEL, folder, endpoint=hub.url)

    assert 20_000 < kept < 40_000
    assert contents(folder) == WHOLE
    assert hub.asked(WEIGHTS, "range") == [None, f"bytes={kept}-"]


def test_a_pause_can_be_cancelled(hub: Hub, folder: Path) -> None:
    hub.refusals = [(429, {"Retry-After": "50"})]
    started = time.monotonic()

    with pytest.raises(DownloadError, match="was stopped"):
        pull(MODEL, folder, endpoint=hub.url, cancel=lambda: bool(hub.requests))

    assert time.monotonic() - started < 10


def test_a_folder_of_another_model_is_left_alone(hub: Hub, folder: Path) -> None:
    pull(MODEL, folder, endpoint=hub.url)

    with pytest.raises(DownloadError, match="already holds 'chatglm3-6b'"):
        pull("chatglm2-6b", folder, endpoint=hub.url)
    pull("zai-org/chatglm3-6b", folder, endpoint=hub.url)  # the same by another name

    assert contents(folder) == WHOLE


def test_a_pointer_in_place_of_the_weights_is_refused(hub: Hub, folder: Path) -> None:
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 7\n"
    hub.files[WEIGHTS] = pointer
    hub.listed[WEIGHTS] = WHOLE[WEIGHTS]

    with pytest.raises(DownloadError, match=f"with {len(pointer)} bytes where its list says 65536"):
        pull(MODEL, folder, endpoint=hub.url)
    del hub.listed[WEIGHTS]
    with pytest.raises(DownloadError, match="Git LFS pointer"):
        pull(MODEL, folder, endpoint=hub.url)


def test_an_unknown_name_lists_the_known_ones(folder: Path) -> None:
    for name in ("chatglm9", "a/b/c", "../x", "a/..", ""):
        with pytest.raises(DownloadError, match=r"known: chatglm-6b, chatglm-6b-int4"):
            pull(name, folder)


def test_every_known_model_has_both_addresses_and_a_size() -> None:
    for name, known in KNOWN_MODELS.items():
        assert known.huggingface == f"zai-org/{name}"
        assert known.modelscope.lower() == f"zhipuai/{name}"
        assert 3e9 < known.size_bytes < 2e10


def names_chosen(*names: str) -> list[str]:
    files = [RemoteFile(name, 4096, "") for name in ("config.json", VOCABULARY, *names)]
    return [file.path for file in choose_files(files, "org/name")][2:]


def test_complete_safetensors_are_preferred_to_bin_files() -> None:
    safe = [f"model-0000{i}-of-00002.safetensors" for i in (1, 2)]
    index = "model.safetensors.index.json"

    assert names_chosen(WEIGHTS, *safe, index) == [index, *safe]
    assert names_chosen(WEIGHTS, safe[0], index) == [WEIGHTS]
    assert names_chosen(WEIGHTS, *safe) == [WEIGHTS]
    assert names_chosen(WEIGHTS, "model.safetensors") == ["model.safetensors"]


def test_bin_shards_need_all_of_them_and_their_index() -> None:
    shards = [f"pytorch_model-0000{i}-of-00003.bin" for i in (1, 2, 3)]
    index = "pytorch_model.bin.index.json"

    assert names_chosen(*shards, index) == [index, *shards]
    for missing in (*shards, index):
        with pytest.raises(DownloadError, match="lacks a complete set of"):
            names_chosen(*({*shards, index} - {missing}))


def test_files_in_subfolders_are_not_taken() -> None:
    assert names_chosen(WEIGHTS, "old/config.json", "onnx/model.safetensors") == [WEIGHTS]


def run_pull(home: Path, server: Hub, *arguments: str, **settings: Any) -> int:
    """Run ``kb model pull`` as configured for `server`."""
    edge = Edge({"home": home, "hub_endpoint": server.url, "hub_token": "hf_secret", **settings})
    return run(["model", "pull", *arguments], edge)


def test_the_command_fetches_into_the_data_folder_and_names_the_next(
    hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status = run_pull(tmp_path, hub, MODEL)

    folder = tmp_path / "checkpoints" / MODEL
    printed = capsys.readouterr()
    assert status == 0
    assert contents(folder) == WHOLE
    assert printed.out.splitlines()[-1] == f"next: kb model add {folder} --bits 4"
    assert "about 12.5 GB, zai-org/chatglm3-6b at http://127.0.0.1" in printed.err
    assert hub.asked(WEIGHTS, "authorization") == ["Bearer hf_secret"]


def test_an_embedder_is_fetched_by_name_and_ready_to_use(
    hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    published = make_embedder(tmp_path / "published", with_modules=False)
    hub.files = {path.name: path.read_bytes() for path in published.iterdir()}
    home = tmp_path / "home"

    status = run_pull(home, hub, "bge-small-zh-v1.5")

    assert status == 0
    assert "next: kb reembed --embedder bge-small-zh-v1.5" in capsys.readouterr().out
    assert contents(home / "embedders" / "bge-small-zh-v1.5") == hub.files
    settings = Settings(home=home, embedder="bge-small-zh-v1.5", threads=1)
    assert InstalledEmbedders(settings).embed_array(["泵油"]).shape == (1, 16)
    assert run_pull(home, hub, "bge-small-zh-v1.5", hub="modelscope") == 1
    assert "--source huggingface" in capsys.readouterr().err


def test_the_command_prints_json(
    hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status = run_pull(tmp_path, hub, "org/my-tune", "--json", hub="modelscope")

    assert status == 0
    assert json.loads(capsys.readouterr().out) == {
        "name": "org/my-tune",
        "repo": "org/my-tune",
        "source": "modelscope",
        "path": str(tmp_path / "checkpoints" / "org--my-tune"),
    }


@pytest.mark.parametrize("other", [["--endpoint"], ["--source", "modelscope", "--endpoint"]])
def test_a_token_is_not_given_to_a_hub_it_was_not_configured_for(
    start_hub: Callable[[], Hub], hub: Hub, tmp_path: Path, other: list[str]
) -> None:
    stranger = start_hub()

    assert run_pull(tmp_path, hub, MODEL, *other, stranger.url) == 0

    assert not hub.requests
    assert {headers.get("authorization") for _, headers in stranger.requests} == {None}


def test_the_command_fails_with_one_line(
    hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_pull(tmp_path, hub, "chatglm9") == 1
    unknown = capsys.readouterr().err
    hub.refusals = [(404, {})]
    assert run_pull(tmp_path, hub, MODEL, "--json") == 1
    missing = capsys.readouterr()

    assert unknown.startswith("kb: no model named 'chatglm9'; known: chatglm-6b, ")
    assert unknown.count("\n") == 1
    assert missing.err.splitlines()[-1].startswith("kb: 127.0.0.1 does not have")
    assert not missing.out


def test_the_command_loads_no_model_library() -> None:
    script = (
        "import sys; from kb.cli.main import run; run(['model', 'pull', 'x'])\n"
        "print([name for name in ('torch', 'sqlalchemy') if name in sys.modules])"
    )

    finished = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)

    assert "no model named 'x'" in finished.stderr
    assert finished.stdout.splitlines()[-1] == "[]"
