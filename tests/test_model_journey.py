"""The whole way of a model: a published folder in, cited answers out, by CLI and HTTP.

The checkpoint is small and random, so what it writes is noise; tests that look at citations make
it say a sentence. Everything else is the real path.
"""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from fastapi.testclient import TestClient

from api.app import create_app
from ingest.fake import FakeEmbedder
from kb.cli.edge import Edge
from kb.cli.main import run
from kb.config import Settings
from kb.wiring import Services
from llm.chat_model import ChatGLM
from tests.llm.checkpoints import write_checkpoint

HANDBOOK = "# 员工手册\n\n正式员工每年享有 15 天带薪年假。差旅报销应在返回后 10 个工作日内提交。\n"
QUESTION = "正式员工每年有几天年假？"

Kb = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("published") / "chatglm3-6b"
    write_checkpoint(folder, "chatglm3", context=2048)
    return folder


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "手册.md").write_text(HANDBOOK, encoding="utf-8")
    return tmp_path / "home"


@pytest.fixture
def opened(home: Path) -> Iterator[Callable[..., Services]]:
    services: list[Services] = []

    def open_(**settings: Any) -> Services:
        made = Services.open(Settings(home=home, **settings), embedder=FakeEmbedder())
        services.append(made)
        return made

    yield open_
    for each in services:
        each.close()


@pytest.fixture
def kb(opened: Callable[..., Services], capsys: pytest.CaptureFixture[str]) -> Kb:
    """Run a command as a process of its own would: services are opened and closed each time."""

    def command(*arguments: str, **settings: Any) -> tuple[int, str, str]:
        code = run(list(arguments), Edge({}, opened(max_new_tokens=16, **settings)))
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return command


def says(model: ChatGLM, text: str) -> None:
    """Make the model write a text with its own tokens, whatever it is asked."""
    script = [*model.tokenizer.encode(text), min(model.tokenizer.stop_ids)]
    position = 0

    def logits(hidden: torch.Tensor) -> torch.Tensor:
        nonlocal position
        row = torch.zeros(1, model.engine.model.config.vocab_size)
        row[0, script[position]] = 100.0
        position = (position + 1) % len(script)
        return row

    model.engine.model.logits = logits  # type: ignore[method-assign]


def test_from_a_published_folder_to_an_answer(kb: Kb, home: Path, checkpoint: Path) -> None:
    docs = str(home.parent / "docs")
    assert kb("ingest", docs)[0] == 0
    code, out, _ = kb("ask", QUESTION, "--json")
    assert json.loads(out)["model"] == "extractive"

    code, out, err = kb("model", "add", str(checkpoint), "--bits", "4")
    assert code == 0, err
    assert "in use: chatglm3-6b-int4" in out
    code, out, err = kb("model", "add", str(checkpoint), "--bits", "8", "--name", "mine", "--json")
    assert code == 0, err
    assert json.loads(out)["in_use"] is False

    code, out, _ = kb("model", "list", "--check", "--json")
    rows = json.loads(out)
    assert code == 0
    models = [row for row in rows if row["kind"] == "model"]
    assert [(row["name"], row["in_use"], row["bits"]) for row in models] == [
        ("chatglm3-6b-int4", True, 4),
        ("mine", False, 8),
    ]

    code, out, err = kb("ask", QUESTION, "--json")
    assert code == 0, err
    reply = json.loads(out)
    assert reply["model"] == "chatglm3-6b-int4"
    assert reply["timings"]["completion_tokens"] > 0
    assert reply["timings"]["prompt_tokens"] > 50

    assert kb("model", "use", "mine")[1] == "in use: mine\n"
    assert json.loads(kb("ask", QUESTION, "--json")[1])["model"] == "mine"
    one = json.loads(kb("ask", QUESTION, "--json", model="chatglm3-6b-int4")[1])
    assert one["model"] == "chatglm3-6b-int4"

    assert kb("model", "remove", "mine", "--yes")[0] == 0
    assert json.loads(kb("ask", QUESTION, "--json")[1])["model"] == "extractive"
    assert "chatglm3-6b-int4" in kb("model", "list")[1]


def test_an_answer_by_the_model_is_cited(
    kb: Kb, opened: Callable[..., Services], home: Path, checkpoint: Path
) -> None:
    kb("ingest", str(home.parent / "docs"))
    kb("model", "add", str(checkpoint))
    services = opened()
    model = services.chat_model
    assert isinstance(model, ChatGLM)
    says(model, "\n 正式员工每年享有 15 天带薪年假。")
    app = create_app(services)
    with TestClient(app, base_url="http://127.0.0.1") as client:
        answer = client.post("/kb/default/ask", json={"question": QUESTION}).json()
        with client.stream(
            "POST", "/kb/default/ask", json={"question": QUESTION, "stream": True}
        ) as stream:
            events = [line[6:] for line in stream.iter_lines() if line.startswith("data: ")]
        completion = client.post(
            "/v1/chat/completions",
            json={"model": "chatglm", "messages": [{"role": "user", "content": "你好"}]},
        ).json()
        models = client.get("/v1/models").json()
    assert answer["model"] == "chatglm3-6b-int4"
    citation = answer["citations"][0]
    assert HANDBOOK[citation["start"] : citation["end"]] == citation["quote"]
    assert "15 天" in citation["quote"]
    assert citation["supported"]
    tokens = "".join(json.loads(event).get("text", "") for event in events[1:-1])
    assert tokens == "正式员工每年享有 15 天带薪年假。"
    assert completion["choices"][0]["message"]["content"] == "正式员工每年享有 15 天带薪年假。"
    assert "chatglm" in [row["id"] for row in models["data"]]


def test_a_damaged_model_is_named_and_nothing_else_breaks(
    kb: Kb, home: Path, checkpoint: Path
) -> None:
    kb("ingest", str(home.parent / "docs"))
    kb("model", "add", str(checkpoint))
    folder = home / "models" / "chatglm3-6b-int4"
    octets = bytearray((folder / "weights.safetensors").read_bytes())
    octets[-10] ^= 0xFF
    (folder / "weights.safetensors").write_bytes(octets)
    code, out, _ = kb("model", "list", "--check")
    assert code == 1
    assert "head.zeros' is damaged" in out

    (folder / "model.json").write_text("{")
    code, _, err = kb("ask", QUESTION)
    assert code == 1
    assert "model.json' is damaged; add the model again" in err
    assert kb("search", QUESTION)[0] == 0


@pytest.mark.parametrize(
    "content",
    ["[]", "[" * 100_000, '{"format_version": 1}', "null", '"x"', "{}"],
    ids=["list", "deep", "empty", "null", "text", "nothing"],
)
def test_a_description_that_is_none(kb: Kb, checkpoint: Path, home: Path, content: str) -> None:
    kb("model", "add", str(checkpoint))
    (home / "models" / "chatglm3-6b-int4" / "model.json").write_text(content)
    code, out, _ = kb("model", "list")
    assert code == 1
    assert "add the model again" in out
    assert kb("doctor")[0] == 0


@pytest.mark.parametrize(
    ("name", "value"),
    [("n_layers", 1), ("n_layers", "x"), ("norm_eps", None), ("context_window", "2048")],
)
def test_a_description_of_another_model(
    kb: Kb, checkpoint: Path, home: Path, name: str, value: object
) -> None:
    kb("model", "add", str(checkpoint))
    path = home / "models" / "chatglm3-6b-int4" / "model.json"
    described = json.loads(path.read_text())
    described["config"][name] = value
    path.write_text(json.dumps(described))
    code, out, _ = kb("model", "list", "--check")
    assert code == 1
    assert "add the model again" in out
    code, _, err = kb("ask", QUESTION)
    assert code == 1
    assert "add the model again" in err or "no documents" in err or "knowledge base" in err


def test_a_damaged_vocabulary_is_found(kb: Kb, checkpoint: Path, home: Path) -> None:
    kb("model", "add", str(checkpoint))
    path = home / "models" / "chatglm3-6b-int4" / "tokenizer.model"
    octets = bytearray(path.read_bytes())
    octets[1570] ^= 1
    path.write_bytes(octets)
    code, out, _ = kb("model", "list", "--check")
    assert code == 1
    assert "tokenizer.model' is damaged; add the model again" in out


def test_what_a_killed_add_left_goes_with_the_next(kb: Kb, checkpoint: Path, home: Path) -> None:
    left = home / "models" / ".other-int4.part"
    left.mkdir(parents=True)
    (left / "weights.safetensors").write_bytes(b"x" * 1000)
    assert kb("model", "add", str(checkpoint))[0] == 0
    assert not left.exists()


def test_a_linked_model_loses_its_link_only(kb: Kb, checkpoint: Path, home: Path) -> None:
    kb("model", "add", str(checkpoint))
    folder = home / "models" / "chatglm3-6b-int4"
    folder.rename(home / "elsewhere")
    folder.symlink_to(home / "elsewhere")
    assert kb("model", "remove", "chatglm3-6b-int4", "--yes")[0] == 0
    assert not folder.exists()
    assert (home / "elsewhere" / "model.json").is_file()


def test_a_base_model_is_never_put_in_use(kb: Kb, home: Path, tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "base", "chatglm3", _name_or_path="THUDM/chatglm3-6b-base")
    kb("ingest", str(home.parent / "docs"))
    code, out, err = kb("model", "add", str(tmp_path / "base"), "--bits", "8")
    assert code == 0, err
    assert "base model" in out
    assert "in use" not in out
    code, _, err = kb("model", "use", "base-int8")
    assert code == 1
    assert "base model" in err
    assert json.loads(kb("ask", QUESTION, "--json")[1])["model"] == "extractive"


def test_an_installed_model_is_not_replaced_unasked(kb: Kb, checkpoint: Path) -> None:
    assert kb("model", "add", str(checkpoint))[0] == 0
    code, _, err = kb("model", "add", str(checkpoint))
    assert code == 1
    assert "installed already" in err
    assert kb("model", "add", str(checkpoint), "--yes")[0] == 0


@pytest.mark.parametrize("name", ["../x", "in-use", "a/b", "", "名字", "x" * 65])
def test_names_are_no_paths(kb: Kb, checkpoint: Path, name: str, home: Path) -> None:
    code, _, err = kb("model", "add", str(checkpoint), "--name", name)
    assert code == 1 or name == ""
    assert not (home.parent / "x").exists()
    if name:
        assert "letters, digits" in err


def test_a_model_that_is_not_there(kb: Kb) -> None:
    code, _, err = kb("model", "use", "chatglm3-6b-int4")
    assert code == 1
    assert "none is installed; run `kb model pull" in err
    code, _, err = kb("ask", QUESTION, answerer="chatglm")
    assert code == 1


def test_a_broken_checkpoint_leaves_no_trace(kb: Kb, checkpoint: Path, home: Path) -> None:
    broken = home.parent / "broken"
    shutil.copytree(checkpoint, broken)
    next(broken.glob("*00002*.safetensors")).write_text("version https://git-lfs.github.com/spec")
    code, _, err = kb("model", "add", str(broken))
    assert code == 1
    assert "Git LFS pointer" in err
    assert [path.name for path in (home / "models").iterdir()] == [".broken-int4.lock"]


class Memory(NamedTuple):
    available: int
    total: int


def test_doctor_says_what_fits(kb: Kb, checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kb("model", "add", str(checkpoint))
    code, out, _ = kb("doctor", "--json")
    facts = json.loads(out)
    assert code == 0
    assert facts["answerer"] == "chatglm: chatglm3-6b-int4 in this process, 4 bits"
    assert torch.backends.cpu.get_cpu_capability() in facts["kernels"]
    monkeypatch.setattr("psutil.virtual_memory", lambda: Memory(24 * 2**30, 24 * 2**30))
    facts = json.loads(kb("doctor", "--json")[1])
    assert facts["chatglm3-6b"].startswith("fits at 4 bits with 8K tokens, 8 bits with 8K tokens")
    assert facts["chatglm-6b"].startswith("fits at 4 bits with 2K tokens")
    monkeypatch.setattr("psutil.virtual_memory", lambda: Memory(4 * 2**30, 24 * 2**30))
    facts = json.loads(kb("doctor", "--json")[1])
    assert facts["chatglm3-6b"] == "does not fit into free memory"
    code, out, _ = kb("doctor", "--json", model="other")
    assert code == 0
    assert "no model 'other'" in json.loads(out)["answerer"]
