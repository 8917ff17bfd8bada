"""The fake chat model behaves like a LangChain chat model."""

import pytest
from langchain_core.messages import AIMessage

from llm.fake import FakeChatModel


def test_it_replies_in_turn_and_then_repeats_the_last() -> None:
    model = FakeChatModel(replies=("one", "two"))
    assert [model.invoke("?").text for _ in range(3)] == ["one", "two", "two"]


def test_streamed_pieces_join_to_the_reply() -> None:
    model = FakeChatModel(replies=("a longer reply",), piece_chars=3)
    pieces = [chunk.text for chunk in model.stream("?")]
    assert "".join(pieces) == "a longer reply"
    assert len([piece for piece in pieces if piece]) == 5


def test_it_stops_where_it_is_told_to() -> None:
    model = FakeChatModel(replies=("first. second.",))
    assert model.invoke("?", stop=[" second"]).text == "first."


def test_it_counts_characters_as_tokens() -> None:
    reply = FakeChatModel(replies=("four",)).invoke("two")
    assert isinstance(reply, AIMessage)
    assert reply.usage_metadata is not None
    assert reply.usage_metadata["output_tokens"] == 4
    assert reply.usage_metadata["input_tokens"] == 3


def test_it_can_lose_its_connection() -> None:
    model = FakeChatModel(replies=("abcdef",), piece_chars=2, fails_after=1)
    pieces = model.stream("?")
    assert next(pieces).text == "ab"
    with pytest.raises(ConnectionError):
        list(pieces)


def test_it_remembers_what_it_was_asked() -> None:
    model = FakeChatModel()
    model.invoke("how are you?")
    assert model.prompts[0][0].text == "how are you?"
