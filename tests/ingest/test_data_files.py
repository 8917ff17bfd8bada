"""JSON, notebooks and source code become text that reads, or stay as they are."""

import json
from dataclasses import replace

import pytest

from ingest.loaders import load_bytes
from kb.errors import CorruptFileError, LimitExceededError, UndecodableTextError
from tests.ingest.files_samples import LIMITS
from tests.ingest.loading import load, titles


def test_records_are_lines_and_names_of_more_are_headings() -> None:
    source = {
        "设备清单": [
            {"编号": "LX-1", "名称": "干涉仪", "停用": None},
            {"编号": "LX-2", "在用": True},
        ],
        "更新": "2023-09-20",
        "地点": {"楼": {"一层": ["车间", "库房"]}, "城市": "北京"},
    }
    loaded = load(json.dumps(source), "设备.json")  # \u escapes

    assert loaded.text == (
        "更新: 2023-09-20\n\n设备清单\n\n编号: LX-1; 名称: 干涉仪\n编号: LX-2; 在用: true\n\n"
        "地点\n城市: 北京\n\n楼\n一层: 车间, 库房"
    )
    assert titles(loaded) == [(1, "设备清单"), (1, "地点"), (2, "楼")]


def test_records_with_inner_ones_are_indented_blocks() -> None:
    source = [{"id": 1, "meta": {"a": {"b": [1, 2]}}, "tags": []}, {"id": 2, "meta": [[1], [2]]}]

    assert load(json.dumps(source), "a.json").text == (
        "id: 1\nmeta:\n  a:\n    b: 1, 2\n\nid: 2\nmeta:\n  - 1\n  - 2"
    )


def test_numbers_are_kept_as_they_are_written() -> None:
    text = load('{"a": 132.0, "b": 1e400, "c": 123456789012345678901234567890, "d": NaN}', "a.json")

    assert text.text == "a: 132.0; b: 1e400; c: 123456789012345678901234567890; d: NaN"


def test_json_lines_are_records_and_broken_ones_noted() -> None:
    loaded = load('{"a": 1}\n\nnot json\n{"a": "乙"}\n', "a.jsonl")

    assert loaded.text == "a: 1\nnot json\na: 乙"
    assert loaded.notes == ("line 3: no valid JSON, kept as plain text",)


def test_json_that_is_cut_is_kept_as_text_with_a_note() -> None:
    loaded = load('{"名称": "测量机",\n "位置":', "a.json")

    assert loaded.text == '{"名称": "测量机",\n "位置":'
    assert "line 2, column" in loaded.notes[0]


@pytest.mark.parametrize("source", ["[]", "{}", "null", "[[], {}]", '{"a": {}, "b": ""}'])
def test_json_without_values_is_empty(source: str) -> None:
    assert load(source, "a.json").text == ""


def test_json_stops_at_the_limits() -> None:
    with pytest.raises(LimitExceededError, match="nested"):
        load("[" * 100_000 + "]" * 100_000, "a.json")
    with pytest.raises(LimitExceededError, match="nested"):
        load("[" * 200 + "1" + "]" * 200, "a.json")
    with pytest.raises(LimitExceededError, match="nested"):
        load('{"a":' * 200 + "1" + "}" * 200, "a.json")
    with pytest.raises(LimitExceededError, match="cells"):
        load_bytes(b"[" + b"1," * 200 + b"1]", "a.json", replace(LIMITS, max_cells=100))


def test_notebooks_are_cells_in_order_with_their_output() -> None:
    notebook = {
        "cells": [
            {"cell_type": "markdown", "source": ["# 分析\n", "\n", "说明。"]},
            {
                "cell_type": "code",
                "source": "print(1)",
                "outputs": [
                    {"output_type": "stream", "text": ["\x1b[31m1\x1b[0m\n"]},
                    {"output_type": "display_data", "data": {"image/png": "iVBO"}},
                    {"output_type": "execute_result", "data": {"text/plain": "42"}},
                    {"output_type": "error", "traceback": ["boom"]},
                ],
            },
            {"cell_type": "markdown", "source": "## 结论\n完。"},
        ],
        "nbformat": 4,
    }
    loaded = load(json.dumps(notebook), "a.ipynb")

    assert loaded.text == "# 分析\n\n说明。\n\nprint(1)\n\n1\n\n42\n\n## 结论\n完。"
    assert titles(loaded) == [(1, "分析"), (2, "结论")]


def test_notebooks_of_version_3_are_read() -> None:
    sheets = {
        "worksheets": [
            {
                "cells": [
                    {"cell_type": "heading", "level": 2, "source": ["标题"]},
                    {"cell_type": "code", "input": ["x = 1"], "outputs": [{"text": "out"}]},
                ]
            }
        ]
    }
    loaded = load(json.dumps(sheets), "a.ipynb")

    assert (loaded.text, titles(loaded)) == ("标题\n\nx = 1\n\nout", [(2, "标题")])


@pytest.mark.parametrize("source", ['{"cells": [', '{"a": 1}', "[]", '{"cells": 3}'])
def test_bad_notebooks_say_why(source: str) -> None:
    with pytest.raises(CorruptFileError, match="notebook"):
        load(source, "a.ipynb")


@pytest.mark.parametrize("name", ["main.py", "启动.BAT", "a.yaml", "x.c", "README"])
def test_source_code_is_kept_as_it_is(name: str) -> None:
    source = "# 第一章 总则\ndef f():\n    return '年假'\n"

    loaded = load(source.encode("gbk"), name)

    assert (loaded.text, loaded.encoding) == (source, "gb18030")


def test_programs_are_no_source_code() -> None:
    with pytest.raises(CorruptFileError, match="a program by its content"):
        load(b"\x7fELF" + bytes(100), "tool")
    with pytest.raises(UndecodableTextError):
        load(bytes(range(256)) * 10, "a.ts")
