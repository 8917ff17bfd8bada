"""The extractive answerer: verbatim, short, and from the right place."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kb.answers.extractive import MAX_SENTENCES, ExtractiveAnswerer, Sentence, compose
from kb.answers.spans import propose
from kb.answers.typed import answer_type, read_question
from kb.records import Draft, Drafted, Passage, Question, Token
from tests.kb.passages import make_hit, make_passages

LIBRARY = make_passages(
    "成人读者每次最多借阅八册图书。借期三十天，可以续借一次。续借须在到期以前办理。",
    "自习室周一上午闭馆整理。\n| 楼层 | 座位数 |\n|---|---|\n| 一楼 | 120 |\n| 二楼 | 86 |\n",
    "The kiln must cool below 60 degrees. It takes about 14 hours. Nobody opens it before.",
)


def chosen_sentences(question: str, passages: list[Passage]) -> list[Sentence]:
    return compose(question, passages)[0]


def drafted(question: str, passages: list[Passage]) -> Draft:
    events = list(ExtractiveAnswerer().answer(Question(question, ("test",), 5), passages))
    assert isinstance(events[-1], Drafted)
    assert all(isinstance(event, Token) for event in events[:-1])
    return events[-1].draft


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("成人一次能借几册？", "成人读者每次最多借阅八册图书。"),
        ("自习室什么时候闭馆？", "自习室周一上午闭馆整理。"),
        ("二楼有多少座位？", "| 二楼 | 86 |"),
        ("How cool must the kiln be?", "The kiln must cool below 60 degrees."),
    ],
)
def test_the_answer_begins_with_the_sentence_that_tells(question: str, expected: str) -> None:
    assert drafted(question, LIBRARY).text.startswith(expected)


def test_tokens_join_to_the_answer() -> None:
    events = list(ExtractiveAnswerer().answer(Question("借期几天？", ("test",), 5), LIBRARY))
    last = events[-1]
    assert isinstance(last, Drafted)
    streamed = "".join(event.text for event in events if isinstance(event, Token))
    assert streamed == last.draft.text


@given(st.text(max_size=40), st.lists(st.text(min_size=1, max_size=120), min_size=1, max_size=4))
def test_every_quote_is_verbatim_and_at_most_three(question: str, texts: list[str]) -> None:
    passages = [
        Passage(number=n, hit=make_hit(text, rank=n, start=7 * n))
        for n, text in enumerate(texts, start=1)
    ]
    quotes = drafted(question, passages).quotes
    assert len(quotes) <= MAX_SENTENCES
    for index, start, end, sentence in quotes:
        chunk = passages[index].hit.chunk
        assert chunk.start <= start < end <= chunk.end
        quote = chunk.text[start - chunk.start : end - chunk.start]
        assert "".join(quote.split()) == "".join(sentence.split())


def test_a_pronoun_is_found_through_the_sentence_before() -> None:
    chosen = chosen_sentences("How many hours does the kiln take?", LIBRARY)
    assert "It takes about 14 hours." in [sentence.text for sentence in chosen]


def test_a_row_of_a_table_is_found_through_its_header() -> None:
    table = make_passages("| 部门 | 内线 |\n|---|---|\n| 财务部 | 8105 |\n| 行政部 | 8107 |\n")
    assert chosen_sentences("行政部的内线是多少？", table)[0].text == "| 行政部 | 8107 |"


def test_a_question_in_two_parts_gets_a_sentence_for_each() -> None:
    texts = [s.text for s in chosen_sentences("成人借几册，自习室何时闭馆？", LIBRARY)]
    assert "成人读者每次最多借阅八册图书。" in texts
    assert "自习室周一上午闭馆整理。" in texts


def test_each_of_several_questions_gets_its_sentence() -> None:
    draft = drafted("一、成人能借几册？二、自习室何时闭馆？", LIBRARY)
    assert draft.text == "成人读者每次最多借阅八册图书。自习室周一上午闭馆整理。"
    assert draft.answer_span is None


def test_wrapped_lines_are_joined_in_the_answer() -> None:
    english = make_passages(
        "The condenser of the large machine must be defrosted after\neach batch."
    )
    draft = drafted("When is the condenser defrosted?", english)
    assert draft.text.endswith("defrosted after each batch.")
    chinese = make_passages("大型冷冻干燥机的冷凝器每批结束以后都应该用热气除霜并且\n擦干内壁。")
    assert drafted("冷凝器怎么除霜？", chinese).text.endswith("除霜并且擦干内壁。")


def test_a_title_is_no_answer() -> None:
    passages = make_passages("冷凝器的除霜\n每批结束以后除霜一次，冷凝器要擦干。")
    assert drafted("冷凝器什么时候除霜？", passages).text.startswith("每批结束以后")


def test_the_same_sentence_is_not_said_twice() -> None:
    passages = make_passages("年假有七天。", "年假有七天。")
    assert len(chosen_sentences("年假有几天？", passages)) == 1


def test_headings_answer_only_where_there_is_nothing_else() -> None:
    text = "## 除霜\n每批以后除霜。"
    assert drafted("何时除霜？", make_passages(text)).text == "每批以后除霜。"
    assert drafted("何时除霜？", make_passages("## 除霜")).text == "## 除霜"


def test_passages_without_sentences_give_an_empty_answer() -> None:
    assert drafted("年假有几天？", make_passages("|---|", "***")).text == ""


@pytest.mark.parametrize(
    ("question", "kind"),
    [
        ("成人一次能借多少册？", "number"),
        ("公司是哪一年成立的？", "year"),
        ("会议几点开始？", "time"),
        ("合同什么时候到期？", "date"),
        ("单价多少元？", "money"),
        ("增长百分之几？", "percent"),
        ("How many pumps are there?", "number"),
        ("When was it built?", "date"),
        ("In what year was it built?", "year"),
        ("Who built the bridge?", "person"),
        ("为什么停机？", "reason"),
        ("What is a kiln?", None),
    ],
)
def test_the_question_tells_the_type_of_its_answer(question: str, kind: str | None) -> None:
    assert answer_type(question) == kind


@pytest.mark.parametrize(
    ("question", "sentence", "span"),
    [
        ("成人一次能借多少册？", "成人每次最多借 8册，少年借 5册。", "8册"),
        ("公司是哪一年成立的？", "公司成立于2009年，2015年迁入苏州。", "2009年"),
        ("年假结转到什么时候？", "结转部分须在次年 3 月 31 日以前交回。", "次年 3 月 31 日"),
        ("In what year did the mill burn?", "Built in 1822, the mill burnt in 1901.", "1901"),
        ("When did the study begin?", "The study began in September 2007.", "September 2007"),
        ("How many pages has it?", "In 1967 the board wrote a report of 12 pages.", "12 pages"),
        ("Who built the bridge?", "The bridge was built by John Rennie.", "John Rennie"),
        ("Who built it?", "Nobody knows.", None),
        ("为什么停机？", "停机 3 小时。", None),
        ("浓度低到多少会报警？", "浓度低于百分之十九点五时报警。", "百分之十九点五"),
        ("每周几天远程办公？", "须在前一天 16:00 以前批准。", None),
        ("王芳的工号是多少？", "王芳：质量部，工号LX1107。", "LX1107"),
        ("2009年发生了什么？", "2009年成立。", "成立"),
    ],
)
def test_a_short_answer_is_found_or_left_out(
    question: str, sentence: str, span: str | None
) -> None:
    proposal = propose(read_question(question), [(sentence, 1.0)])
    assert (proposal.text if proposal else None) == span


def test_the_draft_carries_the_short_answer() -> None:
    draft = drafted("公司是哪一年成立的？", make_passages("公司成立于2009年。总部在苏州。"))
    assert draft.answer_span == "2009年"


def test_the_line_that_names_a_setting_counts_for_what_is_indented_below_it() -> None:
    passages = make_passages(
        "cookie_age\n\n    Default: 7 days.\n\n"
        "idle_limit\n\n    How long nothing may happen.\n\n    Default: 31 days.\n",
    )

    chosen = chosen_sentences("What is the default of idle_limit?", passages)

    assert chosen[0].text == "Default: 31 days."
