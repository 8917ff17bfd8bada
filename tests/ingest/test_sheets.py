"""Workbooks become a heading per sheet and a line per row that names columns and row."""

from dataclasses import replace
from datetime import date, datetime, time
from typing import Any

import pytest

from ingest.loaders import load_bytes
from ingest.loaders.cells import number_text
from kb.errors import CorruptFileError, EncryptedFileError, LimitExceededError
from kb.records import Flag
from tests.ingest.files_samples import LIMITS, zip_of
from tests.ingest.loading import load, titles
from tests.ingest.office_samples import OLE, changed, xls, xlsx


def sheet_of(*rows: tuple[Any, ...], **merges: str) -> bytes:
    def build(workbook: Any) -> None:
        for row in rows:
            workbook.active.append(row)
        for merge in merges.values():
            workbook.active.merge_cells(merge)

    return xlsx(build)


def test_rows_carry_their_header_and_number() -> None:
    data = sheet_of(("区域", "七月", "备注"), ("华东", 412.6, None), ("North", 3, "ok"))

    loaded = load(data, "销售.xlsx")

    assert loaded.text == (
        "表\n\n区域 | 七月 | 备注 (第1行)\n区域: 华东; 七月: 412.6 (第2行)\n"
        "区域: North; 七月: 3; 备注: ok (第3行)"
    ).replace("表\n\n", "表\n")
    assert titles(loaded) == [(1, "表")]


def test_rows_of_an_english_sheet_are_numbered_in_english() -> None:
    def build(workbook: Any) -> None:
        workbook.active.title = "Parts"
        workbook.active.append(("part", "price", "unit"))
        workbook.active.append(("filter", 35, "EUR"))

    assert load(xlsx(build), "a.xlsx").text == (
        "Parts\npart | price | unit (row 1)\npart: filter; price: 35; unit: EUR (row 2)"
    )


def test_titles_blank_rows_and_several_tables_are_told_apart() -> None:
    data = sheet_of(
        ("销售表",),
        ("区域", "一月", "二月"),
        ("华东", 1, 2),
        (),
        ("华南", 3, 4),
        (),
        ("姓名", "电话", "部门"),
        ("张三", 138, "研发"),
        ("单位：万元",),
    )

    assert load(data, "a.xlsx").text == (
        "表\n销售表\n区域 | 一月 | 二月 (第2行)\n区域: 华东; 一月: 1; 二月: 2 (第3行)\n\n"
        "区域: 华南; 一月: 3; 二月: 4 (第5行)\n\n"
        "姓名 | 电话 | 部门 (第7行)\n姓名: 张三; 电话: 138; 部门: 研发 (第8行)\n单位：万元 (第9行)"
    )


def test_merged_cells_stand_where_a_reader_sees_them() -> None:
    data = sheet_of(
        ("部门", "2023年", None, "备注"),
        (None, "一季度", "二季度", None),
        ("研发", 1, 2, "甲"),
        (None, 3, 4, "乙"),
        header="B1:C1",
        first="A1:A2",
        last="D1:D2",
        body="A3:A4",
    )

    assert load(data, "a.xlsx").text.split("\n")[1:] == [
        "部门 | 2023年 一季度 | 2023年 二季度 | 备注 (第1行)",
        "部门: 研发; 2023年 一季度: 1; 2023年 二季度: 2; 备注: 甲 (第3行)",
        "部门: 研发; 2023年 一季度: 3; 2023年 二季度: 4; 备注: 乙 (第4行)",
    ]


def test_merged_data_is_no_header() -> None:
    data = sheet_of(("研发", 1, 2), (None, 3, 4), ("市场", 5, 6), first="A1:A2")

    assert load(data, "a.xlsx").text == (
        "表\n研发 | 1 | 2 (第1行)\n研发 | 3 | 4 (第2行)\n市场 | 5 | 6 (第3行)"
    )


def test_names_and_values_in_two_columns_read_as_pairs() -> None:
    data = sheet_of(("合同编号", "HT-01"), ("甲方", "澜溪"))

    assert load(data, "a.xlsx").text == "表\n合同编号: HT-01 (第1行)\n甲方: 澜溪 (第2行)"


def test_hidden_sheets_are_read_and_marked() -> None:
    def build(workbook: Any) -> None:
        workbook.active.append(("公开",))
        hidden = workbook.create_sheet("薪酬")
        hidden.append(("经理", 650))
        hidden.sheet_state = "hidden"
        workbook.create_sheet("空")

    loaded = load(xlsx(build), "a.xlsx")

    assert titles(loaded) == [(1, "表"), (1, "薪酬 (hidden sheet)")]
    text = "sheet '薪酬' is hidden in the workbook; its text is included"
    assert loaded.flags == (Flag("hidden_part", text),)


def test_formulas_are_their_stored_result_and_those_without_are_counted() -> None:
    data = sheet_of(("a", "b", "c"), (1, 2, "=A2+B2"), (3, 4, "=A3+B3"))
    data = changed(data, "xl/worksheets/sheet1.xml", "<f>A2+B2</f><v></v>", "<f>A2+B2</f><v>3</v>")

    loaded = load(data, "a.xlsx")

    assert "a: 1; b: 2; c: 3 (row 2)\na: 3; b: 4 (row 3)" in loaded.text
    assert "1 formula has no stored result" in loaded.notes[0]


def test_values_read_as_their_owner_sees_them() -> None:
    def build(workbook: Any) -> None:
        row = (date(2023, 11, 5), datetime(2023, 11, 5, 14, 30), time(8, 5), 0.031, 42, True)
        workbook.active.append(row)
        workbook.active["D1"].number_format = "0.0%"
        workbook.active["E1"].number_format = "000000"

    assert load(xlsx(build), "a.xlsx").text == (
        "表\n2023-11-05 | 2023-11-05 14:30:00 | 08:05:00 | 3.1% | 000042 | TRUE (row 1)"
    )


@pytest.mark.parametrize(
    ("value", "number_format", "expected"),
    [
        (45235, 'yyyy"年"m"月"d"日"', "2023年11月5日"),
        (45235, 'yyyy"年"m"月"', "2023年11月"),
        (45235, "[$-804]yyyy/m/d;@", "2023-11-05"),
        (1, "yyyy-m-d", "1900-01-01"),
        (1.5, "[h]:mm", "36:00"),
        (97.65000000000001, "#,##0.00_);[Red](#,##0.00)", "97.65"),
        (0.5, "General", "0.5"),
        (12, '0"台"', "12"),
        (-5, "yyyy-m-d", "-5"),
        (1e300, "0", "1e+300"),
        (1e300, "yyyy", "1e+300"),
    ],
)
def test_numbers_follow_their_format(value: float, number_format: str, expected: str) -> None:
    assert number_text(value, number_format) == expected


def test_dates_may_count_from_1904() -> None:
    assert number_text(43773, "yyyy-m-d", is_1904=True) == "2023-11-05"


def test_old_workbooks_are_read_alike() -> None:
    cells: dict[tuple[int, int], str | float] = {
        (0, 0): "编号",
        (0, 1): "名称",
        (0, 2): "价格",
        (1, 0): 7,
        (1, 1): "进风滤网",
        (1, 2): 35.5,
    }
    loaded = load(xls(cells), "价目.xls")

    assert loaded.text.endswith(
        "编号 | 名称 | 价格 (第1行)\n编号: 7; 名称: 进风滤网; 价格: 35.5 (第2行)"
    )


def test_a_workbook_without_cells_is_empty() -> None:
    assert load(sheet_of(), "a.xlsx").text == ""


@pytest.mark.parametrize(
    ("data", "name", "reason"),
    [
        (b"a,b\n1,2\n", "a.xlsx", "not an Excel workbook"),
        (sheet_of(("a",))[:-300], "a.xlsx", "damaged"),
        (zip_of({"xl/workbook.xml": b"<workbook"}), "a.xlsx", "damaged"),
        (zip_of({"a.txt": b"x"}), "a.xlsx", "some other zip archive"),
        (OLE + bytes(600), "a.xlsx", "old Office document"),
        (OLE + bytes(600), "a.xls", "damaged"),
        (sheet_of(("a",)), "a.xls", "new Office document"),
        (b"<html><table>", "a.xls", "web pages or CSV"),
    ],
)
def test_bad_workbooks_say_why(data: bytes, name: str, reason: str) -> None:
    with pytest.raises(CorruptFileError, match=reason):
        load(data, name)


def test_locked_workbooks_are_named_so() -> None:
    locked = OLE + bytes(100) + "EncryptedPackage".encode("utf-16-le")

    with pytest.raises(EncryptedFileError, match="password"):
        load(locked, "a.xlsx")


def test_workbooks_stop_at_the_limits() -> None:
    data = sheet_of(*[("x" * 100,) * 10] * 50)

    with pytest.raises(LimitExceededError, match="cells"):
        load_bytes(data, "a.xlsx", replace(LIMITS, max_cells=100))
    with pytest.raises(LimitExceededError, match="characters"):
        load_bytes(data, "a.xlsx", replace(LIMITS, max_text_chars=10_000))
    with pytest.raises(LimitExceededError, match="cells"):
        load_bytes(xls({(i, 0): "x" for i in range(101)}), "a.xls", replace(LIMITS, max_cells=100))


def test_a_far_cell_and_a_wide_merge_cost_nothing() -> None:
    data = sheet_of(("a", "b"), ("c", "d"), all="A1:A2")
    data = changed(data, "xl/worksheets/sheet1.xml", '"A1:A2"', '"A1:A1048576"')
    data = changed(data, "xl/worksheets/sheet1.xml", 'r="B2"', 'r="XFD1048576"')

    assert "d" in load(data, "a.xlsx").text


def test_workbooks_that_explode_are_refused() -> None:
    with pytest.raises(LimitExceededError, match="unpacks to"):
        load(zip_of({"xl/workbook.xml": b" " * 80_000_000}), "a.xlsx")
    entities = "".join(f'<!ENTITY l{i} "{f"&l{i - 1};" * 10}">' for i in range(1, 10))
    laughs = f'<!DOCTYPE w [<!ENTITY l0 "ha">{entities}]><w>&l9;</w>'
    with pytest.raises(CorruptFileError, match="XML"):
        load(zip_of({"xl/workbook.xml": laughs.encode()}), "a.xlsx")
