"""Numbers compare by value, however they are written."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kb.text.numbers import canonical, chinese_to_int


@pytest.mark.parametrize(
    ("numeral", "value"),
    [("一千零八十", 1080), ("二〇二三", 2023), ("三万五千", 35_000), ("两亿", 2 * 10**8),
     ("三亿五千万", 35 * 10**7), ("三千万亿", 3 * 10**15)],
)  # fmt: skip
def test_a_chinese_numeral_is_read(numeral: str, value: int) -> None:
    assert chinese_to_int(numeral) == value


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


def test_zeros_that_say_nothing_are_left_out() -> None:
    assert [canonical(each) for each in ("00012", "3.50", "0.0")] == ["12", "3.5", "0"]
