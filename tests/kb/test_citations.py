"""Citations: quotes are verbatim, markers are ours, altered figures are caught."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kb.answers.citations import cite, is_supported
from kb.answers.extractive import ExtractiveAnswerer
from kb.records import Draft, Drafted, Passage, Question, Usage
from kb.text.pages import page_at
from tests.kb.passages import make_hit, make_passages

PASSAGES = make_passages(
    "年假按服务年限计算。当年未休完的年假最多可以结转五天，结转部分须在次年 3 月 31 日以前休完。",
    "The condenser reaches -85 °C. Replace the filter “QY-MF-25” every 6 months.",
)


def written(text: str, span: str | None = None) -> Draft:
    """Return a chat model's draft, which knows nothing of its sources."""
    return Draft(text=text, answer_span=span, quotes=(), usage=Usage())


@pytest.mark.parametrize(
    ("sentence", "source", "supported"),
    [
        ("故障率为 87%。", "故障率为 87 %，比去年低。", True),
        ("故障率为 85%。", "故障率为 87%，比去年低。", False),
        ("共 1900 件。", "共 1,900 件。", True),
        ("工资的 70%。", "按工资的百分之七十发放。", True),
        ("工资的 70%。", "共 70 人。", False),
        ("共三十天。", "共 30 天。", True),
        ("On 5 March 2021 it opened.", "It opened on March 5, 2021.", True),
        ("On 5 April 2021 it opened.", "It opened on March 5, 2021.", False),
        ("须填写《试用期评估表》。", "由主管填写《试用期 评估表》。", True),
        ("须填写《离职申请表》。", "由主管填写《试用期评估表》。", False),
        ("He called it “a triumph”.", "The critic said: A Triumph!", True),
        ("He called it “a failure”.", "The critic said: a triumph!", False),
        ("没有数字的句子。", "别的内容。", True),
        ("「青嶼」是公司。", "青嶼成立。", True),
    ],
)
def test_figures_dates_and_quoted_names_must_occur_in_the_source(
    sentence: str, source: str, supported: bool
) -> None:
    assert is_supported(sentence, source) is supported


def test_a_sentence_of_a_model_is_tied_to_the_sentence_it_rests_on() -> None:
    text, citations, _ = cite(written("未休完的年假最多结转五天。"), PASSAGES)
    assert text == "未休完的年假最多结转五天。[1]"
    assert len(citations) == 1
    assert citations[0].quote.startswith("当年未休完的年假最多可以结转五天")
    assert citations[0].supported


def test_an_altered_figure_is_marked() -> None:
    _, citations, _ = cite(written("Replace the filter every 9 months."), PASSAGES)
    assert [citation.supported for citation in citations] == [False]


def test_the_models_own_markers_are_replaced() -> None:
    text, citations, _ = cite(
        written("The condenser reaches -85 °C [1]. I hope it helps!"), PASSAGES
    )
    assert text == "The condenser reaches -85 °C. [2] I hope it helps!"
    assert [citation.marker for citation in citations] == ["[2]"]


def test_a_marker_helps_only_where_the_passage_agrees() -> None:
    twins = make_passages("泵每年保养一次。", "泵每年保养一次。")
    assert cite(written("泵每年保养一次[2]。"), twins)[1][0].marker == "[2]"
    assert cite(written("泵每年保养一次。"), twins)[1][0].marker == "[1]"


def test_brackets_that_name_no_passage_stay() -> None:
    text, _, _ = cite(written("Call args[0] first."), PASSAGES)
    assert text == "Call args[0] first."


def test_what_no_passage_says_is_not_cited() -> None:
    text, citations, _ = cite(written("香蕉是一种水果。"), PASSAGES)
    assert text == "香蕉是一种水果。"
    assert citations == ()


def test_a_known_source_is_kept_as_it_is() -> None:
    sentence = PASSAGES[1].hit.chunk.text[:29]
    draft = Draft(
        text=sentence, answer_span="-85 °C", quotes=((1, 0, 29, sentence),), usage=Usage()
    )
    text, citations, span = cite(draft, PASSAGES)
    assert text == f"{sentence} [2]"
    assert citations[0].quote == sentence
    assert span is not None
    assert (span.text, span.citation) == ("-85 °C", 0)


def test_a_short_answer_that_no_quote_holds_is_dropped() -> None:
    assert cite(written("The condenser reaches -85 °C.", span="-90 °C"), PASSAGES)[2] is None


@given(st.text(max_size=200), st.lists(st.text(min_size=1, max_size=120), max_size=3))
def test_quotes_are_verbatim_whatever_a_model_writes(answer: str, texts: list[str]) -> None:
    passages = [
        Passage(number=n, hit=make_hit(text, rank=n, start=11 * n))
        for n, text in enumerate(texts, start=1)
    ]
    text, citations, _ = cite(written(answer), passages)
    for citation in citations:
        chunk = passages[int(citation.marker.strip("[]")) - 1].hit.chunk
        document = " " * chunk.start + chunk.text
        assert document[citation.start : citation.end] == citation.quote
        assert citation.marker in text


@given(st.text(max_size=40), st.lists(st.text(min_size=1, max_size=120), min_size=1, max_size=3))
def test_an_extractive_answer_supports_itself(question: str, texts: list[str]) -> None:
    passages = make_passages(*texts)
    *_, last = ExtractiveAnswerer().answer(Question(question, ("test",), 5), passages)
    assert isinstance(last, Drafted)
    _, citations, _ = cite(last.draft, passages)
    assert len(citations) == len(last.draft.quotes)


def test_the_page_is_that_of_the_quote_not_of_the_chunk() -> None:
    hit = make_hit("第一页的话。第二页的话。", start=100, page=1)
    passage = Passage(number=1, hit=hit, pages=(0, 106))
    _, citations, _ = cite(written("第二页的话。"), [passage])
    assert citations[0].page == 2


@pytest.mark.parametrize(
    ("pages", "offset", "page"),
    [((), 5, None), ((0,), 0, 1), ((0, 10), 9, 1), ((0, 10), 10, 2), ((0, 10, 10, 20), 10, 3)],
)
def test_pages_are_found_by_their_starts(
    pages: tuple[int, ...], offset: int, page: int | None
) -> None:
    assert page_at(pages, offset) == page
