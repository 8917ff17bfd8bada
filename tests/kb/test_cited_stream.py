"""Early citations: a sentence's citation comes when the next sentence begins."""

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kb.answers.cited_stream import with_citations
from kb.records import AnswerEvent, Cited, Draft, Drafted, Token, Usage
from kb.text.sentences import split_sentences
from tests.kb.passages import make_passages

PASSAGES = make_passages(
    "年假按服务年限计算。当年未休完的年假最多可以结转五天。", "冷凝器每批以后除霜一次，须用热气。"
)
ANSWER = "未休完的年假最多结转5天。冷凝器每批以后除霜两次[2]。\n没有别的了。"


def streamed(pieces: list[str]) -> list[AnswerEvent]:
    def events() -> Iterator[AnswerEvent]:
        yield from map(Token, pieces)
        yield Drafted(Draft(text="".join(pieces), answer_span=None, quotes=(), usage=Usage()))

    return list(with_citations(events(), PASSAGES))


@pytest.mark.parametrize("size", [1, 3, 7, 100])
def test_each_complete_sentence_is_cited_once_whatever_the_tokens(size: int) -> None:
    pieces = [ANSWER[i : i + size] for i in range(0, len(ANSWER), size)]
    cited = [event for event in streamed(pieces) if isinstance(event, Cited)]
    assert [c.citation.marker for c in cited] == ["[1]", "[2]"]
    assert [c.citation.supported for c in cited] == [True, False]
    assert [ANSWER[: c.end][-1] for c in cited] == ["。", "。"]


def test_a_citation_comes_before_the_answer_ends() -> None:
    events = streamed(["未休完的年假最多结转五天。", "冷凝器", "每批以后除霜一次。"])
    assert [type(event).__name__ for event in events] == [
        "Token", "Token", "Cited", "Token", "Drafted",
    ]  # fmt: skip


def test_a_stream_reads_each_passage_once(monkeypatch: pytest.MonkeyPatch) -> None:
    texts: list[str] = []

    def spy(text: str) -> list[tuple[int, int]]:
        texts.append(text)
        return split_sentences(text)

    monkeypatch.setattr("kb.answers.citations.split_sentences", spy)
    streamed(list(ANSWER))
    for passage in PASSAGES:
        assert texts.count(passage.hit.chunk.text) == 1


@given(st.lists(st.text(max_size=30), max_size=8))
def test_other_events_pass_unchanged(pieces: list[str]) -> None:
    events = [event for event in streamed(pieces) if not isinstance(event, Cited)]
    assert events[:-1] == [Token(piece) for piece in pieces]
    assert isinstance(events[-1], Drafted)
