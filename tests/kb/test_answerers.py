"""The contract of `Answerer`, held by both: extractive, and any chat model."""

from collections.abc import Callable

import pytest

from kb.answers.chat import ChatAnswerer
from kb.answers.extractive import ExtractiveAnswerer
from kb.protocols import Answerer
from kb.records import (
    ChannelScores,
    Chunk,
    Drafted,
    Hit,
    Passage,
    Question,
    Token,
)
from llm.fake import FakeChatModel

TEXTS = (
    "员工每年享有 12 天带薪年假。入职满十年后增加到 18 天。\n",
    "The cooling pump is serviced every 400 hours. The filter is replaced twice a year.\n",
)
OFFSET = 100  # the chunks begin somewhere inside their documents


def _passages() -> list[Passage]:
    passages = []
    for number, text in enumerate(TEXTS, start=1):
        chunk = Chunk(
            id=number,
            kb_id="0" * 32,
            document_id=f"{number:032x}",
            version_id=number,
            position=0,
            start=OFFSET,
            end=OFFSET + len(text),
            page=None,
            heading="",
            text=text,
        )
        hit = Hit(number, 1.0, "test", f"{number}.txt", chunk, ChannelScores(None, 1.0, None))
        passages.append(Passage(number=number, hit=hit))
    return passages


@pytest.fixture(
    params=[
        ExtractiveAnswerer,
        lambda: ChatAnswerer(FakeChatModel(replies=("每年 12 天带薪年假。",)), name="fake"),
    ],
    ids=["extractive", "chat"],
)
def answerer(request: pytest.FixtureRequest) -> Answerer:
    make: Callable[[], Answerer] = request.param
    return make()


@pytest.mark.parametrize("text", ["年假有几天？", "How often is the cooling pump serviced?"])
def test_tokens_come_first_and_make_up_the_one_draft_that_ends_it(
    answerer: Answerer, text: str
) -> None:
    events = list(answerer.answer(Question(text, ("test",), 5), _passages()))

    *tokens, last = events
    assert isinstance(last, Drafted)
    assert tokens
    assert all(isinstance(event, Token) for event in tokens)
    joined = "".join(event.text for event in tokens if isinstance(event, Token))
    assert joined.strip() == last.draft.text.strip()


def test_quotes_lie_inside_the_passages_they_name(answerer: Answerer) -> None:
    passages = _passages()

    *_, last = answerer.answer(Question("年假有几天？", ("test",), 5), passages)

    assert isinstance(last, Drafted)
    for index, start, end, _sentence in last.draft.quotes:
        chunk = passages[index].hit.chunk
        assert chunk.start <= start < end <= chunk.end


def test_stopping_midway_is_no_error(answerer: Answerer) -> None:
    events = answerer.answer(Question("年假有几天？", ("test",), 5), _passages())
    first = next(events)

    events.close()  # type: ignore[attr-defined]

    assert isinstance(first, Token)
    assert list(events) == []


def test_it_has_a_name_to_show(answerer: Answerer) -> None:
    assert answerer.model in ("extractive", "fake")
