"""The examples run, and the demo's documents are what the examples say they are."""

import csv
import io
import os
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ingest.fake import FakeEmbedder
from ingest.langchain_splitter import ContentSplitter
from ingest.loaders.langchain import FileLoader
from kb.config import Settings
from kb.wiring import Services
from llm.fake import FakeChatModel
from tests.llm.checkpoints import write_checkpoint

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "examples"
DOCS = sorted((EXAMPLES / "docs").iterdir())


def example(name: str) -> dict[str, Any]:
    """Return what an example defines, without running its main."""
    return runpy.run_path(str(EXAMPLES / name))


def test_our_loader_splitter_and_embedder_work_with_a_store_of_langchain() -> None:
    search = example("langchain_parts.py")["search_with_a_store_of_langchain"]
    path = EXAMPLES / "docs" / "travel-and-expenses.docx"

    found = search(path, "Book second class on high-speed trains", FakeEmbedder())

    text = FileLoader(path).load()[0].page_content
    assert "second class" in found[0].page_content
    for chunk in found:
        start = chunk.metadata["start_index"]
        assert text[start : start + len(chunk.page_content)] == chunk.page_content


def test_our_retriever_works_in_a_chain_of_langchain(home: Path) -> None:
    parts = example("langchain_parts.py")
    model = FakeChatModel(replies=("1.1 litres [1].",))

    with Services.open(Settings(home=home), embedder=FakeEmbedder()) as services:
        parts["fill"](services)
        reply = parts["ask_with_our_retriever"](services, "What is the weight of the pump?", model)

    prompt = str(model.prompts[0][0].content)
    assert reply == "1.1 litres [1]."
    assert "Weight of the pump | 26 kg" in prompt
    assert "Question: What is the weight of the pump?" in prompt


def test_a_chat_model_of_langchain_works_in_our_chain_and_is_checked(home: Path) -> None:
    own = example("own_chat_model.py")
    model = FakeChatModel(replies=(own["SAYS"],))

    answer = own["answer"](home, own["QUESTION"], model, FakeEmbedder())

    said, invented = answer.citations
    assert not answer.refused
    assert said.supported
    assert "1.1 litres" in said.quote
    assert not invented.supported


def test_chatglm_answers_without_a_knowledge_base(tmp_path: Path) -> None:
    chatglm = example("chatglm.py")
    write_checkpoint(tmp_path / "chatglm3-6b", "chatglm3")

    folder = chatglm["converted"](tmp_path / "chatglm3-6b")
    again = chatglm["converted"](tmp_path / "chatglm3-6b")
    pieces = list(chatglm["reply"](folder, "你好", max_new_tokens=20))

    assert folder == again == tmp_path / "chatglm3-6b-int4"
    assert pieces
    assert list(chatglm["reply"](folder, "你好", max_new_tokens=20)) == pieces


@pytest.mark.slow
@pytest.mark.parametrize("name", ["langchain_parts.py", "own_chat_model.py"])
def test_an_example_runs_as_a_program_with_the_real_embedder(name: str, tmp_path: Path) -> None:
    finished = subprocess.run(
        [sys.executable, str(EXAMPLES / name)],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )

    assert finished.returncode == 0, finished.stderr
    assert "1.1 litres" in finished.stdout


@pytest.mark.parametrize("path", DOCS, ids=lambda path: path.name)
def test_every_document_of_the_demo_has_text_that_tiles(path: Path) -> None:
    (document,) = FileLoader(path).load()

    chunks = ContentSplitter().split_documents([document])

    assert len(document.page_content) > 300
    assert "".join(chunk.page_content for chunk in chunks) == document.page_content


def test_the_documents_of_the_demo_are_small_and_of_many_kinds() -> None:
    assert {path.suffix for path in DOCS} == {".md", ".pdf", ".docx", ".csv", ".txt"}
    assert sum(path.stat().st_size for path in DOCS) < 300_000


def test_the_documents_of_the_demo_are_what_make_docs_writes(tmp_path: Path) -> None:
    # DOCX files carry times of writing; the others are the same to the last byte.
    make = example("make_docs.py")
    make["write_pdf"](tmp_path / "设备保修与售后政策.pdf")
    make["write_csv"](tmp_path / "备件价目表.csv")

    for made in tmp_path.iterdir():
        assert made.read_bytes() == (EXAMPLES / "docs" / made.name).read_bytes(), made.name


def test_numbers_of_the_demo_agree_between_documents() -> None:
    texts = {path.name: FileLoader(path).load()[0].page_content for path in DOCS}
    prices = (EXAMPLES / "docs" / "备件价目表.csv").read_bytes().decode("gb18030")
    parts = {row["料号"] for row in csv.DictReader(io.StringIO(prices))}

    for name, limit in (("员工手册.md", "550 元"), ("travel-and-expenses.docx", "550 yuan")):
        assert limit in texts[name]
    for part in ("QY-OIL-46", "QY-VS-2", "QY-TP-4", "QY-DG-300", "QY-VF-02", "QY-MF-25"):
        assert part in parts
        assert part in texts["operations-manual.md"]
