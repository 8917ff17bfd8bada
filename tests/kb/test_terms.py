"""Terms: what is indexed, what a question looks up, and that both agree."""

import logging
import re
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kb.text.terms import (
    TermStats,
    common_share,
    content_words,
    index_terms,
    name_words,
    query_terms,
    stem,
)

# What the FTS5 table's tokenizer keeps in one piece: no white space, and of ASCII only these.
ONE_TOKEN = re.compile(r"(?:[A-Za-z0-9_.\-]|[^\x00-\x7f])+")


def indexed(text: str) -> set[str]:
    return set(index_terms(text).split())


@given(st.text(max_size=300))
def test_every_term_is_one_token_of_the_full_text_table(text: str) -> None:
    assert all(ONE_TOKEN.fullmatch(term) for term in index_terms(text).split(" ") if term)


@given(st.text(max_size=200))
def test_what_a_text_is_asked_for_word_by_word_it_holds(text: str) -> None:
    assert set(query_terms(text)) <= indexed(text)


@given(st.text(alphabet="中国人民的是在abcXYZ019_-. ，。", max_size=60))
def test_a_question_repeats_no_term(text: str) -> None:
    terms = query_terms(text)
    assert len(terms) == len(set(terms))


def test_english_words_are_folded_and_stemmed() -> None:
    assert indexed("The Pumps were REPLACED") == {"the", "pump", "were", "replac"}
    assert indexed("Café") == {"cafe"}
    assert indexed("Tesla’s coil") == {"tesla", "coil"}


def test_full_width_text_equals_plain_text() -> None:
    assert index_terms("ＱＹ３００　１２３") == index_terms("QY300 123")


def test_numbers_lose_their_separators_and_keep_their_point() -> None:
    assert indexed("1,900 and 3.5 and 12,345.60") == {"1900", "and", "3.5", "12345.6"}


def test_a_written_chinese_number_is_found_by_its_digits() -> None:
    assert "18" in indexed("年满十八岁")
    assert "2019" in indexed("二〇一九年")


@pytest.mark.parametrize(
    ("one", "other", "term"),
    [
        ("二〇二三年", "2023 年", "2023年"),
        ("两千零二十三年", "２０２３年", "2023年"),
        ("三月五日", "3月5号", "5日"),
        ("十二月二十五日", "2023-12-25", "25日"),
        ("二〇二三年三月五日", "2023/3/5", "3月"),
        ("百分之五", "5%", "5％"),
        ("百分之三点五", "3.50 ％", "3.5％"),
        ("第三届", "第3屆", "3届"),
        ("三点", "3點", "3点"),
        ("一千二百元", "1,200元", "1200元"),
    ],
)
def test_numbers_and_dates_are_found_however_they_are_written(
    one: str, other: str, term: str
) -> None:
    for asked, text in ((one, other), (other, one)):
        assert term in query_terms(asked)
        assert term in indexed(text)


@pytest.mark.parametrize(
    ("traditional", "simple"),
    [
        ("臺灣鐵路管理局", "台湾铁路管理局"),
        ("資料庫裡的檔案", "资料库里的档案"),
        ("乾燥機後面", "干燥机后面"),
    ],
)
def test_traditional_and_simplified_text_give_the_same_terms(traditional: str, simple: str) -> None:
    assert index_terms(traditional) == index_terms(simple)
    assert query_terms(traditional) == query_terms(simple)
    assert content_words(traditional) == content_words(simple)


@pytest.mark.parametrize(
    ("identifier", "parts"),
    [
        ("max_new_tokens", {"max_new_tokens", "max", "new", "token"}),
        ("getUserName", {"get", "user", "name"}),
        ("LX-PO-2023-0611", {"lx-po-2023-0611", "lx", "po", "2023", "0611"}),
        ("kb.storage", {"kb.storage", "kb", "storag"}),
        ("C++", {"c＋＋"}),
        ("C#", {"c＃"}),
        ("v1.2.3", {"v1.2.3"}),
    ],
)
def test_an_identifier_gives_the_whole_and_its_parts(identifier: str, parts: set[str]) -> None:
    assert parts <= indexed(f"call {identifier} now")


def test_chinese_gives_characters_pairs_and_long_words() -> None:
    terms = indexed("原产地证明")
    assert {"原", "原产", "产地", "原产地", "证明"} <= terms


def test_a_single_chinese_character_finds_texts_that_hold_it() -> None:
    assert query_terms("猫？") == ["猫"]
    assert "猫" in indexed("白猫在睡觉")


def test_a_question_drops_its_form_and_keeps_its_subject() -> None:
    assert query_terms("What is the boiling point of water?") == ["boil", "point", "water"]
    terms = query_terms("年假是什么时候结转的？")
    assert "年假" in terms
    assert not {"什么", "时候", "是"} & set(terms)


def test_a_question_of_stop_words_alone_keeps_them() -> None:
    assert query_terms("The Who") == ["the", "who"]
    assert query_terms("是什么") != []


@pytest.mark.parametrize("question", ["", "   ", "???", "“”——", '" ( * )'])
def test_a_question_without_letters_has_no_terms(question: str) -> None:
    assert query_terms(question) == []


def test_query_operators_are_words_like_any_other() -> None:
    assert query_terms('pump" OR body:* NEAR(') == ["pump", "bodi", "near"]


@pytest.mark.parametrize(
    ("text", "term"),
    [
        ("東京タワーの高さ", "タワ"),
        ("대한민국", "한민"),
        ("สวัสดีครับ", "สว"),
        ("Привет, мир", "привет"),
        ("हिन्दी भाषा", "हिन्दी"),
        ("שלום עולם", "שלום"),
    ],
)
def test_other_scripts_are_indexed_too(text: str, term: str) -> None:
    assert term in indexed(text)


@pytest.mark.parametrize(
    "text", ["零" * 5000, "亿" * 5000, "百分之" + "五" * 5000, "1" * 5000 + "年"]
)
def test_endless_numbers_are_text_like_any_other(text: str) -> None:
    """Numerals of more than 4,300 digits once ended in Python's refusal to convert them."""
    assert all(len(term) <= 64 for term in query_terms(text))


def test_endless_words_are_left_out() -> None:
    assert index_terms("x" * 5000) == ""


def test_content_words_are_ideas_not_pairs() -> None:
    assert content_words("玉山箭竹的原产地在哪里？") == ["玉山", "箭竹", "原产地"]


def test_unknown_neighbours_form_one_name() -> None:
    assert "叔梁纥" in content_words("叔梁纥的表字是什么？")


def test_words_that_ask_for_a_quantity_are_not_content() -> None:
    assert content_words("年假有几天？") == ["年假"]
    assert "几何" in content_words("几何的起源")


@pytest.mark.parametrize(
    ("question", "names"),
    [
        ("BX500的垂直分辨率是多少？", {"bx500"}),
        ("OceanBase 的默认租户叫什么？", {"oceanbas"}),
        ("What is the capital of Australia?", {"australia"}),
        ("Pumps need oil", set()),
        ("How long does step 2 take after 30 minutes?", {"30"}),
        ("2026年的目标是多少？", {"2026"}),
    ],
)
def test_names_codes_and_numbers_are_told_from_words(question: str, names: set[str]) -> None:
    assert name_words(question) == names


def test_everyday_words_are_common_and_subjects_are_not() -> None:
    assert common_share("朋友") > 10 * common_share("玉山箭竹")
    assert common_share(stem("needed")) > 10 * common_share(stem("sublimation"))


def test_statistics_of_two_bases_add_up() -> None:
    both = TermStats(10, {"pump": 2}) + TermStats(5, {"pump": 1, "oil": 4})
    assert both == TermStats(15, {"pump": 3, "oil": 4})


def test_rarity_falls_with_frequency_and_an_absent_word_is_rarest() -> None:
    stats = TermStats(1000, {"pump": 400, "condenser": 3})
    assert stats.rarity("pump") < stats.rarity("condenser") < stats.rarity("sublimation")


def test_a_word_that_is_no_term_is_as_frequent_as_its_rarest_pair() -> None:
    stats = TermStats(100, {"叔梁": 2, "梁纥": 1})
    assert stats.frequency("叔梁纥") == 1
    assert stats.frequency("叔梁山") == 0


def test_known_share_tells_a_foreign_question() -> None:
    stats = TermStats(100, {"pump": 5, "oil": 5})
    assert stats.known_share(["pump", "oil"]) == 1.0
    assert stats.known_share(["真空", "油泵"]) == 0.0


def test_the_dictionary_is_loaded_silently_and_leaves_no_cache_behind(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    from kb.text import terms

    terms._segmenter.cache_clear()
    cache = Path(tempfile.gettempdir()) / "jieba.cache"
    before = cache.stat().st_mtime_ns if cache.exists() else None
    with caplog.at_level(logging.DEBUG):
        assert query_terms("冷冻干燥机") != []
    assert caplog.records == []
    assert capsys.readouterr().err == ""
    assert (cache.stat().st_mtime_ns if cache.exists() else None) == before


def test_a_question_of_a_hundred_thousand_characters_takes_no_seconds() -> None:
    question = "冷冻干燥机的真空泵多久换一次油？" * 6250
    started = time.perf_counter()
    terms = query_terms(question)
    assert time.perf_counter() - started < 5
    assert len(terms) < 100
