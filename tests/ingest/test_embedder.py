"""The embedder's contract, for the fake and for the real one from its installed package."""

from pathlib import Path

import numpy as np
import pytest
from langchain_core.embeddings import DeterministicFakeEmbedding

from ingest import embedder as embedder_module
from ingest.embedder import MiniLMEmbedder
from ingest.fake import FakeEmbedder
from kb.embedder import Embedder, LangChainEmbedder, embedded_text, text_hash
from kb.errors import EmbedderError

TEXTS = [
    "The pump is serviced every 400 hours.",
    "Maintenance of the pump is due after 400 hours of operation.",
    "Bananas are rich in potassium.",
    "年假十二天。",
    "",
]


@pytest.fixture(scope="module", params=["fake", pytest.param("real", marks=pytest.mark.slow)])
def embedder(request: pytest.FixtureRequest) -> Embedder:
    return FakeEmbedder() if request.param == "fake" else MiniLMEmbedder(threads=1)


def test_rows_are_unit_vectors_of_the_stated_dimension(embedder: Embedder) -> None:
    rows = embedder.embed_array(TEXTS)

    assert rows.shape == (len(TEXTS), embedder.spec.dimension)
    assert rows.dtype == np.float32
    assert np.linalg.norm(rows, axis=1) == pytest.approx(np.ones(len(TEXTS)), abs=1e-5)


def test_rows_keep_the_order_of_texts_whatever_their_length(embedder: Embedder) -> None:
    together = embedder.embed_array(TEXTS)

    for text, row in zip(TEXTS, together, strict=True):
        assert embedder.embed_array([text])[0] == pytest.approx(row, abs=1e-4)


def test_related_texts_are_nearer_than_unrelated_ones(embedder: Embedder) -> None:
    rows = embedder.embed_array(TEXTS)

    assert rows[0] @ rows[1] > rows[0] @ rows[2]


def test_no_texts_give_no_rows(embedder: Embedder) -> None:
    assert embedder.embed_array([]).shape == (0, embedder.spec.dimension)


def test_langchain_sees_lists_of_floats(embedder: Embedder) -> None:
    assert embedder.embed_query(TEXTS[0]) == pytest.approx(embedder.embed_documents(TEXTS[:1])[0])


def test_other_weights_than_the_pinned_ones_are_refused(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"other weights")

    with pytest.raises(EmbedderError, match="reinstall"):
        embedder_module._check_weights(tmp_path / "model.safetensors")
    with pytest.raises(EmbedderError, match="cannot read"):
        embedder_module._check_weights(tmp_path / "missing")


def test_any_langchain_embedder_fits_behind_the_seam() -> None:
    theirs = DeterministicFakeEmbedding(size=64)
    ours = LangChainEmbedder(theirs, FakeEmbedder.spec)

    rows = ours.embed_array(["a", "b"])

    assert rows.shape == (2, 64)
    assert np.linalg.norm(rows[1]) == pytest.approx(1, abs=1e-5)


def test_the_embedded_string_holds_the_heading_but_no_file_name() -> None:
    assert embedded_text("休假 > 年假", " 十二天。\n") == "休假 > 年假\n十二天。"
    assert embedded_text("", "x") == "x"
    assert text_hash("x") != text_hash("y")
