"""Claims: one fact however it is written, and another one where a unit or a part differs."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.planted_faults import N_ANSWERS, is_marked, paraphrases, plant
from kb.answers.citations import is_supported
from kb.answers.claims import claims_in
from kb.evaluation.question_sets import CorpusDocument

SAME = [
    ("2023年3月5日开业", "It opened on 2023-03-05."),
    ("2023年3月5日开业", "于民国112年3月5日开业"),
    ("二〇二三年三月五日", "March 5, 2023"),
    ("3月8日结束", "3月5日至8日举行"),
    ("in the 1980s", "1980年代"),
    ("20世纪80年代", "上世纪八十年代"),
    ("within 15 days", "须在15天内"),
    ("fifteen days", "15天"),
    ("三天", "3天"),
    ("半年", "6个月"),
    ("24小时", "一天"),
    ("1.2万人", "12,000 people"),
    ("3 million yuan", "300万元"),
    ("三亿五千万元", "3.5亿元"),
    ("百分之十九点五", "19.5%"),
    ("四分之一", "25%"),
    ("two-thirds of them", "三分之二"),
    ("16:00以前", "下午4点以前"),
    ("第三名", "third place"),
    ("15名员工", "15个员工"),
    ("型号BX500", "型号 BX-500"),
    ("从 v6.5.0 起", "v6.5.0 及以上"),
    ("2至17公分", "2 to 17 cm"),
    ("型号BX500", "有 BX5000 和 BX 500 两种"),
    ("版本6.5.1", "v6.5.1"),
    ("9 am", "上午9点"),
    ("4:00", "下午4点"),
    ("下午2点至4点", "14:00-16:00"),
    ("零下5℃", "最低气温-5℃"),
    ("-10至-5℃", "零下10度到零下5度"),
    ("8日结束", "3月5日-8日"),
    ("5到10个", "5-10个"),
    ("公元前221年", "in 221 BC"),
]
OTHER = [
    ("2023年3月6日", "2023年3月5日，共6人"),
    ("2022年3月5日", "2023年3月5日，价格2022元"),
    ("2023年5月3日", "2023年3月5日"),
    ("in the 1890s", "in the 1990s"),
    ("限15天", "共15元"),
    ("Costs $15.", "It costs 15 yuan."),
    ("工资的70%", "共70人，增长5%"),
    ("三天", "五天"),
    ("sixteen days", "fifteen days"),
    ("15本", "15人"),
    ("7个核心", "第七"),
    ("17:00以前", "下午4点以前"),
    ("型号BX501", "型号 BX-500"),
    ("从 v6.5.1 起", "从 v6.5.0 起"),
    ("三分之一", "三分之二"),
    ("型号BX50", "型号BX500"),
    ("从 v6.5.1 起", "从 v6.5.10 起"),
    ("型号B1", "型号 AB 12"),
    ("上午9点", "下午9点"),
    ("9 am", "9 pm"),
    ("16:00", "4:00"),
    ("4:00", "16:00"),
    ("16:00", "上午4点"),
    ("-5℃", "5℃"),
    ("5℃", "零下5℃"),
    ("公元前221年", "221年"),
]


@pytest.mark.parametrize(("claim", "source"), SAME)
def test_the_same_fact_in_another_form_is_covered(claim: str, source: str) -> None:
    assert claims_in(source, generous=True).covers(claims_in(claim))


@pytest.mark.parametrize(("claim", "source"), OTHER)
def test_another_fact_is_not_covered(claim: str, source: str) -> None:
    assert not claims_in(source, generous=True).covers(claims_in(claim))


_PIECES = st.sampled_from((*"019,.:-/%年月日三十万点分之个第$4五", "May", " in ", "the ", "half"))


@settings(max_examples=60)
@given(st.one_of(st.text(max_size=80), st.lists(_PIECES, max_size=30).map("".join)))
def test_every_text_covers_itself(text: str) -> None:
    assert claims_in(text, generous=True).covers(claims_in(text))


@pytest.mark.parametrize("text", ["9" * 50_000, "九" * 50_000, "million " * 9_000, "1,111" * 9_000])
def test_endless_numbers_are_read_and_prove_nothing_else(text: str) -> None:
    assert not claims_in(text, generous=True).covers(claims_in("限15天"))


PASSAGES = [
    "新仓库于2021年6月1日投入使用，占地 1200 平方米，可存放托盘 3500 个。入口写着“请出示证件”。",
    "The bridge, 1,280 metres long, was opened on May 27, 1937 and cost 35 million dollars.",
    "《安全操作规程》规定电焊须有 12 名持证人员在场，2019年起施行，作业区内不得存放易燃物。",
]


def test_planted_faults_are_marked_and_the_answers_before_are_not() -> None:
    documents = [CorpusDocument(str(n), "", PASSAGES[n % 3]) for n in range(30)]
    planted = plant(documents, 30, random.Random(1))
    assert len(planted) == 30 < N_ANSWERS
    assert {fault.kind for fault in planted} == {"number", "date", "quoted"}
    assert [f.faulty for f in planted if not is_marked(f.faulty, [f.passage])] == []
    assert [f.faithful for f in planted if is_marked(f.faithful, [f.passage])] == []


def test_faithful_paraphrases_are_hardly_ever_marked() -> None:
    marked = [answer for answer, passage in paraphrases() if not is_supported(answer, passage)]
    assert len(paraphrases()) == 60
    assert len(marked) <= 6
