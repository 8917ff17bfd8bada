"""The chat answerer over a fake model, through LangChain's own streaming."""

import pytest

from kb.answers.chat import ChatAnswerer
from kb.errors import AnswererError
from kb.records import Drafted, Question, Token, Turn
from llm.fake import FakeChatModel
from tests.kb.passages import make_passages

PASSAGES = make_passages("年假有七天。", "病假有十天。")
ASKED = Question("年假有几天？", ("test",), 5, history=(Turn("你好", "你好。"),))


def test_the_answer_is_streamed_then_drafted() -> None:
    model = FakeChatModel(replies=("年假有七天[1]。",), piece_chars=3)
    events = list(ChatAnswerer(model, name="fake").answer(ASKED, PASSAGES))
    tokens = [event.text for event in events if isinstance(event, Token)]
    assert tokens == ["年假有", "七天[", "1]。"]
    last = events[-1]
    assert isinstance(last, Drafted)
    assert last.draft.text == "年假有七天[1]。"
    assert last.draft.quotes == ()
    assert last.draft.usage.completion_tokens == 9
    assert last.draft.usage.prompt_tokens > 0


def test_the_model_gets_passages_history_and_question() -> None:
    model = FakeChatModel(replies=("好。",))
    list(ChatAnswerer(model).answer(ASKED, PASSAGES))
    system, *turns = model.prompts[0]
    assert "年假有七天。" in system.text
    assert "病假有十天。" in system.text
    assert [turn.text for turn in turns] == ["你好", "你好。", "年假有几天？"]


def test_the_first_token_comes_before_the_answer_is_complete() -> None:
    model = FakeChatModel(replies=("long answer",), piece_chars=2, fails_after=2)
    events = ChatAnswerer(model).answer(ASKED, PASSAGES)
    assert next(events) == Token("lo")
    assert next(events) == Token("ng")
    with pytest.raises(AnswererError, match="ConnectionError"):
        next(events)


@pytest.mark.parametrize("reply", ["", "  \n"])
def test_an_empty_answer_is_a_failure(reply: str) -> None:
    answerer = ChatAnswerer(FakeChatModel(replies=(reply,)), name="fake")
    with pytest.raises(AnswererError, match="empty answer"):
        list(answerer.answer(ASKED, PASSAGES))


def test_the_prompt_leaves_room_for_the_completion() -> None:
    model = FakeChatModel(replies=("好。",))
    passages = make_passages(*["内容" * 200] * 10)
    list(ChatAnswerer(model, context_tokens=2000, max_new_tokens=800).answer(ASKED, passages))
    assert sum(len(message.text) for message in model.prompts[0]) < 1300


def test_the_name_is_the_one_given_or_the_models_own() -> None:
    assert ChatAnswerer(FakeChatModel(), name="chatglm3-6b").model == "chatglm3-6b"
    assert ChatAnswerer(FakeChatModel()).model == "fake"
