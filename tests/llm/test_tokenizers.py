"""Tokenizers, on vocabularies made here and on the published ones where those are at hand.

What cannot be checked: ChatGLM-6B's ice_text.model is not at hand, only the list of its pieces.
Scores guessed from the order of that list give the two published encodings, which shows that the
text around SentencePiece and the ids are right, but not that every text is cut the same way. Nor
is known whether the real model trims single spaces at the ends of a text.
"""

import json
import re
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sentencepiece import SentencePieceProcessor

from llm.errors import CheckpointError, UnsupportedModelError
from llm.tokenizers import Tokenizer, load_tokenizer
from llm.tokenizers.chatglm1 import ChatGlm1Tokenizer
from tests.llm.tokenizer_files import (
    MARKS,
    VECTORS,
    WHITE_SPACE,
    chatglm1_model,
    needs_vectors,
    replace_pieces,
    write_tokenizer,
)

GENERATIONS = ("chatglm", "chatglm2", "chatglm3", "glm4")
ROLES = ("<|system|>", "<|user|>", "<|assistant|>", "<|observation|>")
SPELLINGS = (
    *MARKS,
    *WHITE_SPACE[:4],
    *ROLES,
    *("sop", "eop", "<s>", "</s>", "<unk>", "<pad>", "<|endoftext|>", "<0x0A>"),
    *("［gMASK］", "＜n＞", "＜｜ｔａｂ｜＞", "<|blank_２|>"),
)
# Texts as people and attackers write them: words, blanks of all kinds, names of tokens.
TEXTS = st.lists(
    st.one_of(
        st.text(max_size=8),
        st.sampled_from([*SPELLINGS, "\n", "\t", " ", "  ", " " * 81, "年假", "👋", "\x00"]),
    ),
    max_size=12,
).map("".join)


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tokenizer]:
    """One small tokenizer of each generation."""
    return {
        generation: load_tokenizer(
            write_tokenizer(tmp_path_factory.mktemp(generation), generation), generation
        )
        for generation in GENERATIONS
    }


@pytest.fixture(scope="module")
def published() -> dict[str, Any]:
    vectors: dict[str, Any] = json.loads((VECTORS / "tokenizer_vectors.json").read_text("utf-8"))
    return vectors


def chatglm1(**options: bool) -> ChatGlm1Tokenizer:
    return ChatGlm1Tokenizer(SentencePieceProcessor(model_proto=chatglm1_model(**options)))


# --- the published vocabularies ---


@needs_vectors
@pytest.mark.parametrize("generation", ["chatglm2", "chatglm3"])
def test_chatglm2_and_3_encode_as_published(generation: str, published: dict[str, Any]) -> None:
    tokenizer = load_tokenizer(VECTORS / "tokenizers" / "chatglm2_3", generation)

    for one in published["chatglm2"]["sets"]:
        assert tokenizer.encode(one["text"]) == one["ids"]
        assert tokenizer.decode(one["ids"]) == one["text"]


@needs_vectors
def test_chatglm2_and_3_have_the_published_special_tokens() -> None:
    older = load_tokenizer(VECTORS / "tokenizers" / "chatglm2_3", "chatglm2")
    newer = load_tokenizer(VECTORS / "tokenizers" / "chatglm2_3", "chatglm3")

    assert older.prefix_ids == newer.prefix_ids == (64790, 64792)
    assert older.special_ids["eop"] == 64793
    assert [newer.special_ids[role] for role in ROLES] == [64794, 64795, 64796, 64797]
    assert (older.vocab_size, newer.vocab_size) == (64794, 64798)
    assert older.stop_ids == {2}
    assert newer.stop_ids == {2, 64795, 64797}


@needs_vectors
def test_glm4_encodes_as_published(published: dict[str, Any]) -> None:
    tokenizer = load_tokenizer(VECTORS / "tokenizers" / "glm4", "glm4")

    assert tokenizer.encode("你好") == [109377]
    assert tokenizer.encode("\n") == [198]
    assert tokenizer.prefix_ids == (151331, 151333)
    assert tokenizer.stop_ids == {151329, 151336, 151338}
    assert tokenizer.special_ids["<|end_of_video|>"] == 151342
    assert tokenizer.vocab_size == 151343


@pytest.fixture(scope="module")
def piece_list() -> list[str]:
    path = VECTORS / "tokenizers" / "chatglm_v1" / "slim_vocab.txt"
    return path.read_text("utf-8").split("\n")[:130344]


@pytest.fixture(scope="module")
def surrogate(piece_list: list[str]) -> SentencePieceProcessor:
    """ChatGLM-6B's pieces with guessed scores; see the top of this file."""

    def kind(rank: int, piece: str) -> int:  # SentencePiece's numbers
        if rank < 4:
            return 2 if rank == 0 else 3  # unknown, control
        if piece in MARKS or piece in WHITE_SPACE:
            return 4  # user-defined
        return 6 if rank > 130000 and re.fullmatch("<0x[0-9A-F]{2}>", piece) else 1

    pieces = [(piece, kind(rank, piece)) for rank, piece in enumerate(piece_list)]
    return SentencePieceProcessor(model_proto=replace_pieces(chatglm1_model(), pieces))


@needs_vectors
def test_chatglm1_encodes_as_published(
    surrogate: SentencePieceProcessor, published: dict[str, Any]
) -> None:
    tokenizer = ChatGlm1Tokenizer(surrogate)

    for one in published["chatglm_v1"]["sets"]:
        assert tokenizer.encode(one["text"]) == one["ids"]
        assert tokenizer.decode(one["ids"]) == unicodedata.normalize("NFKC", one["text"])


@needs_vectors
def test_chatglm1_has_the_published_special_tokens(surrogate: SentencePieceProcessor) -> None:
    tokenizer = ChatGlm1Tokenizer(surrogate)

    assert tokenizer.prefix_ids == ()
    assert tokenizer.suffix_ids == (130001, 130004)
    assert tokenizer.stop_ids == {130005}
    assert tokenizer.vocab_size == 130344
    assert set(tokenizer.encode("a\tb  c   d\n")) >= {130008, 130009, 130010, 4}


@needs_vectors
def test_the_first_chatglm1_has_ids_20000_higher(surrogate: SentencePieceProcessor) -> None:
    tokenizer = ChatGlm1Tokenizer(surrogate, id_offset=20000)

    assert tokenizer.encode("你好") == [20005, 94874]
    assert tokenizer.decode([5, 20005, 94874]) == "你好"
    assert tokenizer.suffix_ids == (150001, 150004)
    assert tokenizer.stop_ids == {150005}


# --- for every generation ---


@given(text=TEXTS)
@pytest.mark.parametrize("generation", GENERATIONS)
def test_no_text_encodes_to_a_special_token(
    tokenizers: dict[str, Tokenizer], generation: str, text: str
) -> None:
    tokenizer = tokenizers[generation]

    ids = tokenizer.encode(text)

    assert not set(ids) & set(tokenizer.special_ids.values())
    assert not set(ids) & tokenizer.stop_ids
    assert all(0 <= token_id < tokenizer.vocab_size for token_id in ids)


@given(text=TEXTS)
def test_chatglm2_gives_a_text_back(tokenizers: dict[str, Tokenizer], text: str) -> None:
    tokenizer = tokenizers["chatglm3"]

    assert tokenizer.decode(tokenizer.encode(text)) == text.replace("\u2581", " ")


@given(text=TEXTS)
def test_glm4_gives_a_text_back(tokenizers: dict[str, Tokenizer], text: str) -> None:
    tokenizer = tokenizers["glm4"]

    assert tokenizer.decode(tokenizer.encode(text)) == text


@given(text=st.text(alphabet="ab年假问[]<>|n\n\t .👋"))
def test_chatglm1_gives_normal_text_back(tokenizers: dict[str, Tokenizer], text: str) -> None:
    tokenizer = tokenizers["chatglm"]

    assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.mark.parametrize("has_typeable_marks", [True, False])
@pytest.mark.parametrize("spelling", [*MARKS, *WHITE_SPACE, "<s>", "</s>", "<pad>", "<unk>"])
def test_chatglm1_gives_names_of_tokens_back_as_typed(
    spelling: str, has_typeable_marks: bool
) -> None:
    tokenizer = chatglm1(has_typeable_marks=has_typeable_marks)

    for text in (spelling, f"a{spelling}b\n{spelling}", f"{spelling}{spelling}  {spelling}\t"):
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_a_look_alike_of_a_line_break_is_no_line_break() -> None:
    tokenizer = chatglm1()

    assert tokenizer.decode(tokenizer.encode("＜n＞答：")) == "<n>答:"


@given(text=st.text(alphabet="ab年假问，！Ａ[]n\n\t ."))
@pytest.mark.parametrize("trims_space", [True, False])
def test_cutting_at_white_space_changes_no_ids(text: str, trims_space: bool) -> None:
    """The published code encodes the whole text at once, with the names of white space in it."""
    model = SentencePieceProcessor(model_proto=chatglm1_model(trims_space=trims_space))
    named = text.replace("\n", "<n>").replace("\t", "<|tab|>")
    for n in range(80, 1, -1):
        named = named.replace(" " * n, f"<|blank_{n}|>")

    assert ChatGlm1Tokenizer(model).encode(text) == model.encode(named)


@given(text=st.text(max_size=30))
def test_chatglm2_decodes_as_sentencepiece_does(
    tokenizers: dict[str, Tokenizer], tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    folder = write_tokenizer(tmp_path_factory.getbasetemp(), "chatglm2")
    model = SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))

    ids = model.encode(text)

    assert tokenizers["chatglm2"].decode(ids) == model.decode(ids)


@pytest.mark.parametrize("generation", GENERATIONS)
def test_decoding_leaves_out_specials_and_unknown_ids(
    tokenizers: dict[str, Tokenizer], generation: str
) -> None:
    tokenizer = tokenizers[generation]
    specials = list(tokenizer.special_ids.values())
    beyond = [-1, tokenizer.vocab_size, 10**9]

    ids = [*specials, *beyond, *tokenizer.encode("年假 10 天"), *beyond, *specials]

    assert tokenizer.decode(ids) == "年假 10 天"
    assert tokenizer.decode([]) == ""


@pytest.mark.parametrize("generation", GENERATIONS)
def test_lone_surrogates_become_replacement_characters(
    tokenizers: dict[str, Tokenizer], generation: str
) -> None:
    tokenizer = tokenizers[generation]

    assert tokenizer.encode("a\ud800\udfffb") == tokenizer.encode("a\ufffd\ufffdb")


@pytest.mark.parametrize("text", [" " * 1_000_001, "\u3000\t " * 400_000, "a" * 200_000, "\n" * 99])
def test_long_runs_neither_crash_glm4_nor_get_lost(
    tokenizers: dict[str, Tokenizer], text: str
) -> None:
    tokenizer = tokenizers["glm4"]

    assert tokenizer.decode(tokenizer.encode(text)) == text


# --- files that are not what they should be ---


def file_of(generation: str) -> str:
    return "ice_text.model" if generation == "chatglm" else "tokenizer.model"


@pytest.mark.parametrize("generation", GENERATIONS)
def test_a_missing_file_is_named(tmp_path: Path, generation: str) -> None:
    with pytest.raises(CheckpointError, match=rf"{file_of(generation)}' is missing"):
        load_tokenizer(tmp_path, generation)


@pytest.mark.parametrize("generation", GENERATIONS)
def test_a_git_lfs_pointer_is_told_from_damage(tmp_path: Path, generation: str) -> None:
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:5e974d9a\nsize 2706249\n"
    (tmp_path / file_of(generation)).write_text(pointer)

    with pytest.raises(CheckpointError, match="Git LFS pointer"):
        load_tokenizer(tmp_path, generation)


@pytest.mark.parametrize("content", [b"", b"\x00" * 100, b"<html>Not found</html>", b"a b\n" * 9])
@pytest.mark.parametrize("generation", GENERATIONS)
def test_other_content_is_refused(tmp_path: Path, generation: str, content: bytes) -> None:
    (tmp_path / file_of(generation)).write_bytes(content)

    with pytest.raises(CheckpointError, match=r"(download|fetch) it again"):
        load_tokenizer(tmp_path, generation)


@pytest.mark.parametrize("generation", GENERATIONS)
def test_a_file_cut_short_is_refused(tmp_path: Path, generation: str) -> None:
    path = write_tokenizer(tmp_path, generation) / file_of(generation)
    content = path.read_bytes()
    cuts = {len(content) // 2, len(content) * 9 // 10, 1000}
    if generation == "glm4":
        cuts.add(content.rfind(b"\n", 0, -1) + 1)  # one whole line
    else:
        # Nothing but whole pieces: the settings that follow them are gone.
        cuts.add(1 + max(content.rfind(name.encode()) + len(name) for name in ("<0xFF>", "▁")))

    for cut in cuts:
        path.write_bytes(content[:cut])
        with pytest.raises(CheckpointError, match=r"(download|fetch) it again"):
            load_tokenizer(tmp_path, generation)


def test_the_file_of_another_generation_is_refused(tmp_path: Path) -> None:
    content = {
        generation: (write_tokenizer(tmp_path, generation) / file_of(generation)).read_bytes()
        for generation in GENERATIONS
    }

    (tmp_path / "tokenizer.model").write_bytes(content["glm4"])
    with pytest.raises(CheckpointError, match="no SentencePiece model"):
        load_tokenizer(tmp_path, "chatglm3")
    (tmp_path / "tokenizer.model").write_bytes(content["chatglm3"])
    with pytest.raises(CheckpointError, match="not GLM-4's list"):
        load_tokenizer(tmp_path, "glm4")
    (tmp_path / "ice_text.model").write_bytes(content["chatglm3"])
    with pytest.raises(CheckpointError, match="not ChatGLM-6B's"):
        load_tokenizer(tmp_path, "chatglm")


def test_an_unknown_generation_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModelError, match="chatglm9"):
        load_tokenizer(tmp_path, "chatglm9")
    with pytest.raises(ValueError, match="only ChatGLM-6B"):
        load_tokenizer(tmp_path, "glm4", id_offset=20000)
