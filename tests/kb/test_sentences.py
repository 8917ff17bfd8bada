"""Sentences: where they end, in both languages, and that nothing is lost."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kb.text.sentences import split_questions, split_sentences


def sentences(text: str) -> list[str]:
    return [text[start:end] for start, end in split_sentences(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("第一句。第二句！第三句？", ["第一句。", "第二句！", "第三句？"]),
        ("他说：“走吧。”然后就走了。", ["他说：“走吧。”", "然后就走了。"]),
        ("Mr. Smith paid 3.5 USD. He left.", ["Mr. Smith paid 3.5 USD.", "He left."]),
        ("J. R. Tolkien wrote it. We read it.", ["J. R. Tolkien wrote it.", "We read it."]),
        ('He asked "Why?" and left', ['He asked "Why?"', "and left"]),
        ("1. Open the valve\n2. Wait", ["1. Open the valve", "2. Wait"]),
        ("| 假别 | 天数 |\n| 婚假 | 13 天 |", ["| 假别 | 天数 |", "| 婚假 | 13 天 |"]),
        ("姓名: 王芳\n工号: 1107", ["姓名: 王芳", "工号: 1107"]),
        ("Use v1.2.3 of kb.storage now", ["Use v1.2.3 of kb.storage now"]),
        (
            "This line was wrapped at some sixty characters by an editor\nand goes on here. Next.",
            [
                "This line was wrapped at some sixty characters by an editor\nand goes on here.",
                "Next.",
            ],
        ),
        (
            "物料编码: LX-LD-21; 物料名称: 激光器组件; 库存数量: 4; 库位: B-01\n物料编码: LX-2",
            ["物料编码: LX-LD-21; 物料名称: 激光器组件; 库存数量: 4; 库位: B-01", "物料编码: LX-2"],
        ),
        ("", []),
        (" \n\n ", []),
    ],
)
def test_sentences_end_where_a_reader_ends_them(text: str, expected: list[str]) -> None:
    assert sentences(text) == expected


@given(st.text(alphabet="ab 。.!?；\n中文”'1", max_size=80))
def test_nothing_but_white_space_is_lost(text: str) -> None:
    spans = split_sentences(text)
    assert all(left[1] <= right[0] for left, right in itertools.pairwise(spans))
    assert "".join("".join(sentences(text)).split()) == "".join(text.split())
    assert all(piece == piece.strip() and piece for piece in sentences(text))


@pytest.mark.parametrize(
    ("text", "questions"),
    [
        ("年假有几天？", ["年假有几天？"]),
        ("请回答两个问题：一、谁管门禁？二、几点下班？", ["谁管门禁", "几点下班"]),
        ("Who built it? When?", ["Who built it", "When"]),
        ("1. Who built it? 2. When was that?", ["Who built it", "When was that"]),
        ("一、二号线的首班车几点？", ["一、二号线的首班车几点？"]),
        ("", [""]),
    ],
)
def test_several_questions_are_told_apart(text: str, questions: list[str]) -> None:
    assert split_questions(text) == questions
