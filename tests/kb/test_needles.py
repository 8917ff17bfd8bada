"""The search of bytes agrees with a plain one, and needles are cut from all over a text."""

import hashlib
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from kb.upkeep import needles
from kb.upkeep.needles import NEEDLE_BYTES, Finder, forms, is_telling, spread, telling_slice


@given(
    data=st.binary(max_size=400),
    cuts=st.lists(st.tuples(st.integers(0, 400), st.integers(8, 24)), max_size=6),
    strangers=st.lists(st.binary(min_size=8, max_size=12), max_size=3),
)
def test_the_finder_finds_what_a_plain_search_finds(
    data: bytes, cuts: list[tuple[int, int]], strangers: list[bytes]
) -> None:
    cut = [data[start : start + size] for start, size in cuts]
    patterns = [*(piece for piece in cut if len(piece) >= 8), *strangers]

    found = Finder(patterns).find(data)

    assert found == {p: data.find(p) for p in patterns if p in data}


def test_a_file_is_searched_across_the_blocks_it_is_read_in(tmp_path: Path) -> None:
    needle = "蓝鲸计划的预算表".encode()
    path = tmp_path / "file"
    path.write_bytes(b"x" * (needles._BLOCK_BYTES - 5) + needle + b"y" * 100)

    found = Finder([needle, b"not in there at all"]).find_in_file(path)

    assert found == {needle: needles._BLOCK_BYTES - 5}


def test_small_pieces_are_searched_one_by_one() -> None:
    assert Finder([b"abcdefgh"]).find_in_all([b"abcd", b"efgh"]) == set()
    assert Finder([b"abcdefgh"]).find_in_all([b"xx", b"-abcdefgh-"]) == {b"abcdefgh"}


@given(st.text(max_size=600), st.integers(1, 40))
def test_needles_stand_in_the_text_and_are_short(text: str, wanted: int) -> None:
    found = spread(text, wanted)

    assert len(found) <= wanted
    assert all(needle in text for needle in found)
    sizes = [len(needle.encode("utf-8", "surrogatepass")) for needle in found]
    assert all(NEEDLE_BYTES <= size < NEEDLE_BYTES + 4 for size in sizes)


def test_needles_come_from_all_over_the_text() -> None:
    text = "".join(hashlib.sha256(bytes([n])).hexdigest() for n in range(200))

    places = [text.index(needle) for needle in spread(text, 16)]

    assert len(places) == 16
    assert places[0] < len(text) / 10
    assert places[-1] > len(text) * 8 / 10


def test_what_says_nothing_is_no_needle() -> None:
    assert spread("-" * 500 + "0" * 500 + " " * 500, 16) == []
    assert not is_telling(b"\0" * 100)


def test_forms_are_those_in_which_text_is_stored() -> None:
    found = dict(forms("年假\n", "gb18030"))

    assert found["UTF-8"].decode() == "年假\n"
    assert found["JSON"] == b"\\u5e74\\u5047\\n"
    assert found["UTF-16-LE"].decode("utf-16-le") == "年假\n"
    assert found["gb18030"].decode("gb18030") == "年假\n"


def test_the_slice_of_a_vector_is_one_that_says_something() -> None:
    vector = bytes(96) + bytes(range(48)) + bytes(96)

    assert telling_slice(vector) == bytes(range(48))
