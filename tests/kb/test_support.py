"""Support: high where passages hold what is asked, low where the subject is nowhere."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kb.records import EmbedderSpec, Hit
from kb.refusal.antonyms import says_opposite
from kb.refusal.support import DEFAULT_SUPPORT_THRESHOLD, support, word_match
from kb.text.terms import TermStats, content_words, index_terms, pairs
from tests.kb.passages import make_hit

LATIN = EmbedderSpec("mini", "mini/1", 384, frozenset({"Latn"}))

# A small handbook of one chunk per paragraph, unlike any of the shipped examples.
HANDBOOK = [
    "借书证遗失须在七日内到服务台挂失，补办工本费为十五元。",
    "成人读者每次最多借阅八册图书，借期三十天，可以续借一次。",
    "自习室开放时间为早上八点到晚上九点半，周一上午闭馆整理。",
    "逾期图书每册每天收取两角滞纳金，最高不超过图书定价。",
    "The kiln must cool below 60 degrees before anyone opens the door.",
    "Glaze buckets are stirred for five minutes and sieved twice before use.",
    "Members book the pottery wheel online; each slot lasts ninety minutes.",
]


def stats_of(question: str, texts: list[str]) -> TermStats:
    """Count as `FullText.stats` does."""
    held = [set(index_terms(text).split()) for text in texts]
    words = [*content_words(question)]
    words += [pair for word in words for pair in pairs(word)]
    frequencies = {word: sum(word in terms for terms in held) for word in words}
    return TermStats(len(texts), {word: count for word, count in frequencies.items() if count})


def judged(question: str, dense: float | None = None) -> float:
    hits = [make_hit(text, rank=i, dense=dense) for i, text in enumerate(HANDBOOK, start=1)]
    best = sorted(
        hits, key=lambda hit: -support(question, [hit], stats=stats_of(question, HANDBOOK))
    )
    return support(question, best, stats=stats_of(question, HANDBOOK), spec=LATIN)


@pytest.mark.parametrize(
    "question",
    [
        "借书证丢了，补办要交多少工本费？",
        "成人一次最多可以借阅几册图书？",
        "自习室晚上几点关门？开放时间是什么？",
        "图书逾期每天的滞纳金是多少？",
        "How long do I stir the glaze buckets?",
        "Below which temperature in degrees may the kiln door be opened?",
    ],
)
def test_what_the_documents_tell_is_supported(question: str) -> None:
    assert judged(question) >= DEFAULT_SUPPORT_THRESHOLD


@pytest.mark.parametrize(
    "question",
    [
        "馆长的名字叫什么？",
        "停车场怎么收费？",
        "火星的直径是多少？",
        "咖啡厅的招牌饮料是什么？",
        "What is the capital of Australia?",
        "Who sells liability insurance?",
        "Does the studio offer Bluetooth speakers?",
    ],
)
def test_a_subject_that_is_nowhere_is_not_supported(question: str) -> None:
    assert judged(question) < DEFAULT_SUPPORT_THRESHOLD


def test_no_hits_and_no_content_give_none() -> None:
    assert support("年假有几天？", []) == 0
    assert support("是什么？", [make_hit("年假七天")]) == 0


@given(st.text(max_size=60), st.text(max_size=120), st.floats(-1, 1))
def test_support_is_a_chance(question: str, text: str, cosine: float) -> None:
    hit = make_hit(text, dense=cosine)
    assert 0 <= support(question, [hit], spec=LATIN) <= 1


def test_a_missing_code_weighs_more_than_a_missing_word() -> None:
    text = "The vertical resolution of the BX200 is 0.1 nm."
    there = support("What is the vertical resolution of the BX200?", [make_hit(text)])
    other = support("What is the vertical resolution of the BX500?", [make_hit(text)])
    assert other < DEFAULT_SUPPORT_THRESHOLD < there


def test_a_cosine_counts_only_in_a_script_the_embedder_knows() -> None:
    near, far = make_hit("泵每年保养。", dense=0.9), make_hit("泵每年保养。", dense=-0.2)
    question = "泵的保养周期？"
    assert support(question, [near], spec=LATIN) == support(question, [far], spec=LATIN)
    near, far = make_hit("Oil the pump.", dense=0.8), make_hit("Oil the pump.", dense=0.0)
    question = "When is lubrication due?"
    assert support(question, [near], spec=LATIN) > support(question, [far], spec=LATIN)


def test_words_near_each_other_support_more_than_words_far_apart() -> None:
    filler = "这里讲别的事情。" * 5
    near = make_hit(f"{filler}冷凝器的除霜周期是三个月。{filler}")
    far = make_hit(f"冷凝器在背面。{filler}除霜很慢。{filler}周期不同。")
    question = "冷凝器的除霜周期？"
    assert support(question, [near]) > support(question, [far])


def test_only_the_best_hits_count() -> None:
    hits: list[Hit] = [make_hit("别的内容。", rank=rank) for rank in range(1, 10)]
    hits.append(make_hit("年假有七天。", rank=10))
    assert support("年假有几天？", hits) == support("年假有几天？", hits[:9])


def test_a_word_matches_whole_by_pairs_or_in_part() -> None:
    terms = set(index_terms("原产于台湾的箭竹，垫圈 KF-25").split())
    assert word_match("箭竹", terms) == 1
    assert 0 < word_match("原产地", terms) < 1
    assert word_match("显微镜", terms) == 0
    assert 0 < word_match("kf-26", terms) < 1


def among_many(question: str, text: str) -> float:
    """Judge one passage of a base of 600 chunks, each word of the question in a few of them."""
    words = content_words(question)
    stats = TermStats(600, dict.fromkeys([*words, *index_terms(text).split()], 9))
    return support(question, [make_hit(text, dense=0.6)], stats=stats, spec=LATIN)


def test_a_denial_that_the_passage_does_not_make_is_not_supported() -> None:
    text = "The Court of Justice is the main judicial body of the European Union."

    asked = among_many("What is the main judicial body of the European Union?", text)
    denied = among_many("What is not the main judicial body of the European Union?", text)

    assert denied < DEFAULT_SUPPORT_THRESHOLD < asked


def test_the_opposite_of_a_word_of_the_question_supports_less() -> None:
    text = "The eastern pump hall has the largest turbine of the plant."

    same = among_many("Which pump hall has the largest turbine?", text)
    opposite = among_many("Which pump hall has the smallest turbine?", text)
    other = among_many("Which pump hall has the quietest turbine?", text)

    assert opposite < other - 0.1 < other < same


def test_opposites_count_only_in_place_of_the_word() -> None:
    assert says_opposite({"largest"}, {"smallest"})
    assert not says_opposite({"largest"}, {"smallest", "largest"})
    assert not says_opposite({"largest", "smallest"}, {"smallest"})
    assert not says_opposite({"turbin"}, {"smallest"})
