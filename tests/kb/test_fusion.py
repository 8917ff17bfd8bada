"""Fusion by rank and margin, and the weight a channel has earned."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kb.records import EmbedderSpec
from kb.retrieval.fusion import channel_weights, fuse, knows_scripts
from kb.text.terms import TermStats

LATIN = EmbedderSpec("mini", "mini/1", 384, frozenset({"Latn"}))
ALL = EmbedderSpec("m3", "m3/1", 1024, frozenset({"Latn", "Hani", "Cyrl"}))

ids = st.lists(st.integers(1, 50), unique=True, max_size=20)
weights = st.floats(0, 4)


def hits(ids: list[int]) -> list[tuple[int, float]]:
    """Return a channel's list in this order, with scores that fall evenly."""
    return [(id_, 1 - n / 100) for n, id_ in enumerate(ids)]


@given(ids, ids, weights, weights)
def test_scores_lie_in_0_to_1_and_fall(
    dense: list[int], lexical: list[int], dense_weight: float, lexical_weight: float
) -> None:
    fused = fuse(
        {"dense": hits(dense), "lexical": hits(lexical)},
        {"dense": dense_weight, "lexical": lexical_weight},
    )
    scores = [score for _, score in fused]
    assert scores == sorted(scores, reverse=True)
    assert all(0 < score <= 1 + 1e-9 for score in scores)
    assert len(fused) == len({chunk_id for chunk_id, _ in fused})


@given(ids, ids)
def test_a_channel_without_weight_changes_nothing(noise: list[int], lexical: list[int]) -> None:
    fused = fuse({"dense": hits(noise), "lexical": hits(lexical)}, {"dense": 0.0, "lexical": 1.0})
    assert [chunk_id for chunk_id, _ in fused] == lexical


@given(ids)
def test_a_channel_that_found_nothing_costs_the_other_nothing(lexical: list[int]) -> None:
    alone = fuse({"lexical": hits(lexical)}, {"lexical": 1.0})
    beside = fuse({"dense": [], "lexical": hits(lexical)}, {"dense": 1.0, "lexical": 1.0})
    assert beside == alone


def test_what_both_channels_found_comes_first() -> None:
    fused = fuse(
        {"dense": hits([1, 2, 3]), "lexical": hits([4, 2, 5])}, {"dense": 1.0, "lexical": 1.0}
    )
    assert fused[0][0] == 2


def test_first_in_every_channel_scores_1() -> None:
    fused = fuse({"dense": hits([7, 1]), "lexical": hits([7, 2])}, {"dense": 0.5, "lexical": 1.0})
    assert fused[0] == (7, pytest.approx(1.0))


def test_ties_keep_the_order_in_which_chunks_were_seen() -> None:
    same = {"dense": [(1, 0.5), (2, 0.5)], "lexical": [(3, 9.0), (4, 9.0)]}
    fused = fuse(same, {"dense": 1.0, "lexical": 1.0})
    assert [chunk_id for chunk_id, _ in fused] == [1, 3, 2, 4]


def test_a_clear_first_beats_one_of_many() -> None:
    """By rank alone both would be equal: each is first in one channel and third in the other."""
    dense = [(1, 0.9), (2, 0.3), (3, 0.29), (4, 0.28)]
    lexical = [(3, 10.0), (4, 9.9), (1, 9.8), (2, 9.7)]
    fused = fuse({"dense": dense, "lexical": lexical}, {"dense": 1.0, "lexical": 1.0})
    assert fused[0][0] == 1


def test_measured_weights_take_the_place_of_the_usual_ones() -> None:
    measured = {"dense": 2.0, "lexical": 0.5}
    assert channel_weights("a pump", LATIN, measured=measured) == measured
    alone = channel_weights("水泵", LATIN, measured={"dense": 1.0, "lexical": 0.0})
    assert alone == {"dense": 0.0, "lexical": 1.0}


def test_an_embedder_has_no_say_in_a_script_it_does_not_know() -> None:
    assert channel_weights("年假有几天？", LATIN)["dense"] == 0
    assert channel_weights("BX200 的质保期是多长？", LATIN)["dense"] == 0
    assert channel_weights("年假有几天？", ALL)["dense"] > 0
    assert channel_weights("How many days of leave?", LATIN)["dense"] > 0


@pytest.mark.parametrize(
    ("text", "scripts", "known"),
    [
        ("plain words", {"Latn"}, True),
        ("Großräschen", {"Latn"}, True),
        ("the Δ-9 isomer of the compound", {"Latn"}, True),
        ("Привет", {"Latn"}, False),
        ("東京タワー", {"Hani"}, False),
        ("東京タワー", {"Hani", "Kana"}, True),
        ("12345 !?", {"Latn"}, False),
        ("", {"Latn"}, False),
    ],
)
def test_scripts_are_told_by_their_letters(text: str, scripts: set[str], known: bool) -> None:
    assert knows_scripts(text, frozenset(scripts)) is known


def test_lexical_has_little_say_where_the_base_holds_none_of_the_words() -> None:
    foreign = TermStats(100, {})
    own = TermStats(100, {"day": 3, "leav": 4})
    question = "How many days of leave?"
    assert channel_weights(question, LATIN, stats=foreign)["lexical"] < 0.1
    assert channel_weights(question, LATIN, stats=own)["lexical"] == 1


def test_lexical_keeps_its_say_where_it_is_alone() -> None:
    assert channel_weights("年假有几天？", LATIN, stats=TermStats(100, {}))["lexical"] == 1
