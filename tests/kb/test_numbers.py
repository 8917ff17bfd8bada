"""Numbers compare by value, however they are written."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kb.numbers import canonical, chinese_to_int, numbers_in


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("共 1,900 件", ["1900"]),
        ("１２．５％", ["12.5%"]),
        ("百分之九十", ["90%"]),
        ("5 % of 10", ["5%", "10"]),
        ("一千零八十人", ["1080"]),
        ("二〇二三年四月一日", ["2023"]),
        ("00012 and 3.50", ["12", "3.5"]),
        ("版本 1.2.3", ["1.2", "3"]),
        ("一般来说", []),
        ("十二", ["12"]),
        ("三万五千", ["35000"]),
        ("两亿", ["200000000"]),
    ],
)
def test_numbers_are_found_in_one_form(text: str, numbers: list[str]) -> None:
    assert list(numbers_in(text)) == numbers


def _chinese(value: int) -> str:
    digits = "零一二三四五六七八九"
    if value < 10:
        return digits[value]
    text = ""
    for unit, name in ((10_000, "万"), (1000, "千"), (100, "百"), (10, "十")):
        count, rest = divmod(value, unit)
        if count:
            zero = "零" if rest and rest < unit // 10 else ""
            return text + _chinese(count) + name + zero + (_chinese(rest) if rest else "")
    return text


@given(st.integers(0, 99_999_999))
def test_written_numerals_are_read_back(value: int) -> None:
    assert chinese_to_int(_chinese(value)) == value


def test_what_is_no_numeral_is_none() -> None:
    assert chinese_to_int("十点") is None
    assert chinese_to_int("") is None


@given(st.integers(0, 10**12))
def test_separators_do_not_change_a_number(value: int) -> None:
    assert canonical(f"{value:,}") == str(value)
