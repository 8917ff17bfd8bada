"""The embedder's contract, for the fake and for the real one from its installed package."""

import threading
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


@pytest.fixture(
    scope="module",
    params=[
        "fake",
        pytest.param("fp32", marks=pytest.mark.slow),
        pytest.param("bf16", marks=pytest.mark.slow),
    ],
)
def embedder(request: pytest.FixtureRequest) -> Embedder:
    if request.param == "fake":
        return FakeEmbedder()
    return MiniLMEmbedder(request.param, batch_size=2, threads=2)


def test_rows_are_unit_vectors_of_the_stated_dimension(embedder: Embedder) -> None:
    rows = embedder.embed_array(TEXTS)

    assert rows.shape == (len(TEXTS), embedder.spec.dimension)
    assert rows.dtype == np.float32
    assert np.linalg.norm(rows, axis=1) == pytest.approx(np.ones(len(TEXTS)), abs=1e-5)


def test_rows_keep_the_order_of_texts_whatever_their_length(embedder: Embedder) -> None:
    together = embedder.embed_array(TEXTS)
    alone = np.concatenate([embedder.embed_array([text]) for text in TEXTS])

    # bf16 rounds what other texts of a batch pad
    assert (together * alone).sum(axis=1) == pytest.approx(np.ones(len(TEXTS)), abs=1e-3)


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


@pytest.mark.slow
def test_both_forms_agree_and_each_finds_the_other() -> None:
    fp32 = MiniLMEmbedder("fp32", threads=1)
    bf16 = fp32.matching(MiniLMEmbedder("bf16").spec)
    assert bf16 is not None

    cosines = (fp32.embed_array(TEXTS) * bf16.embed_array(TEXTS)).sum(axis=1)

    assert cosines.min() > 0.995
    assert fp32.spec.identity != bf16.spec.identity
    assert bf16.matching(fp32.spec).spec == fp32.spec
    assert fp32.matching(FakeEmbedder().spec) is None


def test_an_embedder_matches_only_itself() -> None:
    fake = FakeEmbedder()

    assert fake.matching(fake.spec) is fake
    assert fake.matching(MiniLMEmbedder("fp32").spec) is None


@pytest.mark.slow
def test_embedding_leaves_torchs_threads_to_others_as_they_were() -> None:
    import torch

    before = torch.get_num_threads()
    MiniLMEmbedder("fp32", threads=1).embed_array(TEXTS[:1])

    assert torch.get_num_threads() == before


@pytest.mark.slow
def test_a_question_does_not_wait_for_an_ingest() -> None:
    embedder = MiniLMEmbedder("fp32", batch_size=16, threads=1)
    embedder.embed_array(["load the model"])
    many = ["The pump is serviced every 400 hours. " * 30] * 200
    ended = threading.Event()
    ingest = threading.Thread(target=lambda: (embedder.embed_array(many), ended.set()))
    ingest.start()

    embedder.embed_query("How often is the pump serviced?")

    assert not ended.is_set()
    ingest.join()
