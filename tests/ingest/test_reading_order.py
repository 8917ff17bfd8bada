"""Boxes of text become lines in the order of reading."""

import random

from ingest.loaders.reading_order import Line, in_reading_order


def line(text: str, left: float, top: float, width: float, height: float = 20) -> Line:
    return Line(text, 0.9, (left, top, left + width, top + height))


def column(
    name: str, left: float, *, n: int = 12, top: float = 100, width: float = 380
) -> list[Line]:
    """A column of prose whose last line is short."""
    return [
        line(f"{name}{i}", left, top + 30 * i, width if i < n - 1 else width / 3) for i in range(n)
    ]


def texts(lines: list[Line]) -> list[str]:
    shuffled = list(lines)
    random.Random(0).shuffle(shuffled)
    return [one.text for one in in_reading_order(shuffled)]


def test_one_column_is_read_from_the_top() -> None:
    lines = column("a", 50, width=800)

    assert texts(lines) == [one.text for one in lines]


def test_two_columns_are_read_one_after_the_other() -> None:
    lines = column("a", 50) + column("b", 470)

    assert texts(lines) == [one.text for one in lines]


def test_three_columns_are_read_one_after_the_other() -> None:
    lines = column("a", 50, width=250) + column("b", 330, width=250) + column("c", 610, width=250)

    assert texts(lines) == [one.text for one in lines]


def test_columns_need_not_begin_at_the_same_height_nor_share_base_lines() -> None:
    lines = column("a", 50) + column("b", 470, top=143, n=9)

    assert texts(lines) == [one.text for one in lines]


def test_a_title_stands_before_and_a_line_across_between_the_columns() -> None:
    title = line("title", 200, 40, 500, 30)
    upper = column("a", 50, n=6) + column("b", 470, n=6)
    across = line("across", 50, 300, 800)
    lower = column("c", 50, n=6, top=340) + column("d", 470, n=6, top=340)
    footer = line("7", 445, 600, 12)

    expected = [title, *upper, across, *lower, footer]

    assert texts(expected) == [one.text for one in expected]


def test_cells_of_a_table_stay_in_their_rows() -> None:
    names = [line(f"name{i}", 50, 100 + 40 * i, 60 + 35 * (i % 4)) for i in range(10)]
    values = [line(f"value{i}", 470, 100 + 40 * i, 50) for i in range(10)]

    assert texts(names + values) == [f"name{i} value{i}" for i in range(10)]


def test_two_signatures_below_a_text_are_no_columns() -> None:
    lines = column("a", 50, n=14, width=800)
    parties = [
        line(f"{side}{i}", left, 600 + 40 * i, 250)
        for i in range(4)
        for side, left in (("buyer", 50), ("seller", 500))
    ]

    assert texts(lines + parties)[-4:] == [f"buyer{i} seller{i}" for i in range(4)]


def test_parts_of_a_row_are_joined_and_weigh_by_their_length() -> None:
    parts = [Line("ab", 0.5, (0, 0, 40, 20)), Line("cdefgh", 0.9, (60, 2, 180, 22))]

    (row,) = in_reading_order(parts)

    assert row.text == "ab cdefgh"
    assert abs(row.confidence - 0.8) < 1e-9
    assert row.box == (0, 0, 180, 22)


def test_nothing_gives_nothing() -> None:
    assert in_reading_order([]) == []
    assert in_reading_order([line("  ", 0, 0, 10)]) == []
