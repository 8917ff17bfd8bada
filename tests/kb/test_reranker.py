"""The cross-encoder: a real one of two layers and random weights, made here."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from kb.errors import ConfigError, RerankerError
from kb.records import Question
from kb.retrieval.reranker import Reranker, find_reranker
from kb.storage.bases import find_base
from kb.traces.why import why
from kb.wiring import Services
from tests.building import add_document, make_base, open_services

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS += ["pump", "oil", "hall", "crew", "hours", "the", "is", "泵", "油"]
TEXTS = ["The pump is in the hall.\n", "Pump oil: every 90 hours.\n", "The crew has a pump.\n"]


def make_cross_encoder(folder: Path, num_labels: int = 1) -> None:
    """Write a checkpoint as a hub publishes it."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification, BertTokenizer

    folder.mkdir(parents=True)
    (folder / "vocab.txt").write_text("\n".join(WORDS), encoding="utf-8")
    BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    torch.manual_seed(3)
    config = BertConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=64,
        num_labels=num_labels,
        initializer_range=1.0,
    )
    BertForSequenceClassification(config).save_pretrained(folder)


class Reader:
    """A reranker that prefers the longest text, and says what it was given."""

    def __init__(self) -> None:
        self.read: list[str] = []

    def scores(self, question: str, texts: Sequence[str]) -> list[float]:
        self.read = list(texts)
        return [len(text) / 100 for text in texts]


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    with open_services(tmp_path / "home") as opened:
        base = make_base(opened.database, "halls")
        add_document(opened.database, base, "halls.txt", TEXTS)
        yield opened


def test_a_cross_encoder_scores_pairs_in_0_to_1_and_tells_them_apart(tmp_path: Path) -> None:
    make_cross_encoder(tmp_path / "tiny")
    reranker = Reranker(str(tmp_path / "tiny"), tmp_path)

    scores = reranker.scores("pump oil", TEXTS)

    assert len(scores) == len(TEXTS)
    assert all(0 <= score <= 1 for score in scores)
    assert len(set(scores)) > 1
    assert reranker.scores("pump oil", TEXTS[::-1]) == pytest.approx(scores[::-1], abs=1e-5)
    assert reranker.scores("pump oil", ["oil " * 5000]) != []
    assert reranker.scores("pump oil", []) == []


def test_the_reranker_of_the_settings_reorders_a_search(tmp_path: Path) -> None:
    make_cross_encoder(tmp_path / "home" / "checkpoints" / "BAAI--bge-reranker-base")
    settings = {"reranker": "bge-reranker-base", "rerank_top": 2}
    with open_services(tmp_path / "home", **settings) as services:
        base = make_base(services.database, "halls")
        add_document(services.database, base, "halls.txt", TEXTS)

        hits = services.retriever.search(Question("pump oil hall", ("halls",), 3)).hits
        plain = services.retriever.search(Question("pump", ("halls",), 3, channel="lexical")).hits

    assert [hit.channels.rerank is None for hit in hits] == [False, False, True]
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    assert all(0 <= hit.score <= 1 for hit in hits)
    assert all(hit.channels.rerank is None for hit in plain)


def test_only_the_first_are_read_and_the_rest_stay_behind(services: Services) -> None:
    reader = Reader()
    services.retriever._reranker, services.retriever._rerank_top = reader, 2

    hits = services.retriever.search(Question("pump oil hall crew", ("halls",), 3)).hits

    assert len(reader.read) == 2
    assert hits[0].chunk.text.strip() == max(reader.read, key=len)
    assert hits[2].channels.rerank is None


def test_why_names_the_reranker_that_put_a_document_below(services: Services) -> None:
    with services.database.read() as session:
        base = find_base(session, "halls")
    add_document(services.database, base, "short.txt", ["Pump oil."])
    services.retriever._reranker, services.retriever._rerank_top = Reader(), 4
    asked = Question("pump oil", ("halls",), 1)

    found = why(services.database, services.retriever, services.answerer, asked, "short.txt")

    assert found.verdict == "below_rerank"
    assert found.remedy


@pytest.mark.parametrize("name", ["bge-reranker-base", "/nowhere/at all", "x" * 500, "../.."])
def test_a_missing_model_is_named_with_what_helps(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="KB_RERANKER"):
        find_reranker(tmp_path, name)


def test_a_missing_model_stops_searches_and_nothing_else(tmp_path: Path) -> None:
    with open_services(tmp_path / "home", reranker=str(tmp_path / "gone")) as services:
        base = make_base(services.database, "halls")
        add_document(services.database, base, "halls.txt", TEXTS)

        assert services.chain.search(Question("pump", ("halls",), 3, channel="lexical"))
        with pytest.raises(ConfigError, match="gone"):
            services.chain.search(Question("pump", ("halls",), 3))


def test_a_classifier_is_no_reranker(tmp_path: Path) -> None:
    make_cross_encoder(tmp_path / "sorts", num_labels=3)

    with pytest.raises(RerankerError, match="3 scores"):
        Reranker(str(tmp_path / "sorts"), tmp_path).scores("pump", TEXTS)


def test_a_broken_checkpoint_is_a_clear_error(tmp_path: Path) -> None:
    make_cross_encoder(tmp_path / "cut")
    (tmp_path / "cut" / "model.safetensors").write_bytes(b"cut")

    with pytest.raises(RerankerError, match="cut"):
        Reranker(str(tmp_path / "cut"), tmp_path).scores("pump", TEXTS)
