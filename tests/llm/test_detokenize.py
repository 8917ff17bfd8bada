"""A reply's text, token by token."""

import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm.detokenize import TextStream
from llm.errors import GenerationError
from llm.tokenizers import Tokenizer, load_tokenizer
from tests.llm.tokenizer_files import VECTORS, needs_vectors, write_tokenizer

GENERATIONS = ("chatglm", "chatglm2", "chatglm3", "glm4")


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tokenizer]:
    return {
        generation: load_tokenizer(
            write_tokenizer(tmp_path_factory.mktemp(generation), generation), generation
        )
        for generation in GENERATIONS
    }


@pytest.fixture(scope="module")
def chatglm3(tokenizers: dict[str, Tokenizer]) -> Tokenizer:
    return tokenizers["chatglm3"]


def stream(tokenizer: Tokenizer, ids: list[int], *stop: str) -> list[str]:
    """Return what each token releases, and last what the end releases."""
    text = TextStream(tokenizer, stop)
    return [*(text.push(token_id) for token_id in ids), text.finish()]


@given(ids=st.lists(st.integers(-2, 600), max_size=40))
@pytest.mark.parametrize("generation", GENERATIONS)
def test_a_stream_of_any_ids_is_the_decoded_whole(
    tokenizers: dict[str, Tokenizer], generation: str, ids: list[int]
) -> None:
    """The first 600 ids hold every single byte and, but for GLM-4, the specials."""
    tokenizer = tokenizers[generation]
    ids = [i for i in ids if i != tokenizer.special_ids.get("<|assistant|>")]

    assert "".join(stream(tokenizer, ids)) == tokenizer.decode(ids)


@needs_vectors
@given(ids=st.lists(st.integers(0, 64789), max_size=20))
def test_a_stream_in_the_published_vocabulary_is_the_decoded_whole(ids: list[int]) -> None:
    tokenizer = load_once(VECTORS / "tokenizers" / "chatglm2_3")

    assert "".join(stream(tokenizer, ids)) == tokenizer.decode(ids)


_LOADED: dict[Path, Tokenizer] = {}


def load_once(folder: Path) -> Tokenizer:
    if folder not in _LOADED:
        _LOADED[folder] = load_tokenizer(folder, "chatglm3")
    return _LOADED[folder]


@pytest.mark.parametrize("generation", GENERATIONS)
def test_half_a_character_is_held_back(tokenizers: dict[str, Tokenizer], generation: str) -> None:
    tokenizer = tokenizers[generation]
    released = stream(tokenizer, tokenizer.encode("好👋🏽a👋"))

    assert "".join(released) == "好👋🏽a👋"
    assert not any("\ufffd" in piece for piece in released)


def test_a_character_that_stays_half_comes_out_at_the_end(chatglm3: Tokenizer) -> None:
    ids = chatglm3.encode("年👋")

    released = stream(chatglm3, ids[:-1])

    assert released[-1] == "\ufffd"
    assert "".join(released) == "年\ufffd"


@pytest.mark.parametrize("generation", ["chatglm2", "glm4"])
def test_a_replacement_character_in_the_text_is_kept(
    tokenizers: dict[str, Tokenizer], generation: str
) -> None:
    tokenizer = tokenizers[generation]
    text = "a\ufffd\ufffdb\ufffd"

    assert "".join(stream(tokenizer, tokenizer.encode(text))) == text


def test_only_the_space_before_the_text_is_dropped(chatglm3: Tokenizer) -> None:
    for text in (" a", "  a b ", "\n a"):
        assert "".join(stream(chatglm3, chatglm3.encode(text))) == text


def test_text_before_a_stop_string_is_all_that_comes_out(chatglm3: Tokenizer) -> None:
    text = TextStream(chatglm3, ["\n问："])

    released = "".join(text.push(i) for i in chatglm3.encode("年假十天\n问：还有吗"))

    assert released == "年假十天"
    assert text.is_stopped
    assert text.push(chatglm3.encode("a")[0]) == ""
    assert text.finish() == ""


def test_what_only_began_like_a_stop_string_comes_out(chatglm3: Tokenizer) -> None:
    ids = chatglm3.encode("aab")

    assert "".join(stream(chatglm3, ids, "aabc", "ac")) == "aab"
    assert "".join(stream(chatglm3, [*ids, *ids], "aabc")).replace(" ", "") == "aabaab"


def test_no_more_is_held_back_than_may_begin_a_stop_string(chatglm3: Tokenizer) -> None:
    text = TextStream(chatglm3, ["天。END"])

    released = "".join(text.push(i) for i in chatglm3.encode("年假十天。E"))
    assert released == "年假十"
    assert text.push(chatglm3.encode("年")[-1]).endswith("天。E") is False
    assert not text.is_stopped


@given(
    text=st.text(alphabet="ab。", max_size=30),
    stop=st.lists(st.text(alphabet="ab。", min_size=1, max_size=4), max_size=3),
)
def test_stopping_does_not_depend_on_the_tokens(
    tokenizers: dict[str, Tokenizer], text: str, stop: list[str]
) -> None:
    """The same as reading the text a character at a time and stopping as soon as one is there."""
    tokenizer = tokenizers["chatglm2"]
    ends = [(text.find(one) + len(one), text.find(one)) for one in stop if one in text]

    expected = text[: min(ends)[1]] if ends else text

    assert "".join(stream(tokenizer, tokenizer.encode(text), *stop)) == expected


def test_a_second_message_of_the_model_begins_a_line(chatglm3: Tokenizer) -> None:
    ids = [
        *chatglm3.encode("\n年假"),
        chatglm3.special_ids["<|assistant|>"],
        *chatglm3.encode("get_weather\n"),
    ]

    assert "".join(stream(chatglm3, ids)) == "\n年假\n get_weather\n"


def test_an_empty_stop_string_is_refused(chatglm3: Tokenizer) -> None:
    with pytest.raises(GenerationError, match="empty"):
        TextStream(chatglm3, ["END", ""])


def test_a_token_costs_the_same_at_the_end_of_a_long_reply(chatglm3: Tokenizer) -> None:
    ids = [*chatglm3.encode("年假十天，"), 0x80 + 3] * 20_000

    def seconds(count: int) -> float:
        started = time.process_time()
        stream(chatglm3, ids[:count], "aaaa", "END")
        return time.process_time() - started

    seconds(1000)
    assert seconds(100_000) < 40 * seconds(10_000)  # ten, were it not for a busy machine
