"""Each format becomes clean text with exact headings and pages, or a reason why not."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from langchain_core.documents import Document

from benchmarks.docs_manifest import judge, read_manifest
from ingest.loaders import LOADERS, is_supported, load_bytes, loader_version
from ingest.loaders.base import LoadedText
from ingest.loaders.langchain import FileLoader
from ingest.parser import Parser
from kb.errors import (
    CorruptFileError,
    EncryptedFileError,
    LimitExceededError,
    LoadError,
    UnsupportedFormatError,
)
from kb.records import LoadedDocument
from tests.ingest.files_samples import LIMITS, docx, pdf, zip_of

SHARED = Path("../shared/data")


def load(data: bytes | str, name: str) -> LoadedText:
    return load_bytes(data.encode() if isinstance(data, str) else data, name, LIMITS)


def titles(loaded: LoadedText | LoadedDocument) -> list[tuple[int, str]]:
    """The headings, after checking that each stands at the beginning of its line."""
    for heading in loaded.headings:
        assert heading.start == 0 or loaded.text[heading.start - 1] == "\n"
    return [(heading.level, heading.title) for heading in loaded.headings]


def heading_lines(loaded: LoadedText) -> list[str]:
    return [loaded.text[heading.start :].split("\n")[0] for heading in loaded.headings]


def test_the_table_names_modules_and_versions() -> None:
    assert is_supported("资料/手册.PDF")
    assert is_supported("a.tar.md")
    assert not is_supported("archive.zip")
    assert is_supported("no_extension")
    assert loader_version("手册.docx") == LOADERS[".docx"][1] != ""
    assert loader_version("a.zip") == ""


def test_an_unknown_format_says_which_are_known() -> None:
    with pytest.raises(UnsupportedFormatError, match=r"\.zip files .* \.pdf"):
        load(b"PK", "a.zip")


@pytest.mark.parametrize(
    "suffix", sorted(set(LOADERS) - {".docx", ".doc"})
)  # those import for seconds
def test_an_empty_file_is_an_empty_text(suffix: str) -> None:
    assert load(b"", f"a{suffix}").text == ""


def test_plain_text_is_kept_and_chapters_are_headings() -> None:
    text = (
        "目录\n第一章 总则......1\n\n第一章 总则\n\n第一条规定如下。\n"
        "第二章：休假\n　　第一节 年假\n正文"
    )

    loaded = load(text, "a.txt")

    assert loaded.text == text
    assert titles(loaded) == [(2, "第一章 总则"), (2, "第二章：休假"), (3, "第一节 年假")]


def test_sentences_that_name_a_chapter_are_no_headings() -> None:
    assert (
        load("第一章讲述了设备的检查，第二章讲述维修。\nChapter 3 says so.\n", "a.txt").headings
        == ()
    )


def test_numbered_titles_of_chinese_notices_are_headings_and_lists_are_not() -> None:
    text = (
        "通知\n\n一、供餐时间\n早餐：7:15。\n二、价格\n六元。\n"
        "名单：\n一、张三\n二、李四\n三、王五。\n"
    )

    assert titles(load(text, "a.txt")) == [(4, "一、供餐时间"), (4, "二、价格")]


def test_english_chapters_are_headings() -> None:
    assert titles(load("CHAPTER IV\n\nIt rained.\n\nChapter 5\n", "a.txt")) == [
        (1, "CHAPTER IV"),
        (1, "Chapter 5"),
    ]


def test_markdown_headings_are_found_outside_code() -> None:
    text = """# 手册 #

Setext 一级
===

段落，
二级标题
---

```sh
# 注释不是标题
```

~~~
## 也不是
~~~

### 三级 `code`
    # 缩进的不是
#不是
- 列表
---
"""
    loaded = load(text, "a.md")

    assert loaded.text == text
    assert titles(loaded) == [
        (1, "手册"),
        (1, "Setext 一级"),
        (2, "二级标题"),
        (3, "三级 `code`"),
    ]
    assert heading_lines(loaded) == ["# 手册 #", "Setext 一级", "二级标题", "### 三级 `code`"]


def test_the_title_of_a_front_matter_is_a_heading() -> None:
    loaded = load("---\ntitle: '向量搜索'\nsummary: 概述\n---\n\n## 用法\n", "a.md")

    assert titles(loaded) == [(1, "向量搜索"), (2, "用法")]


def test_restructuredtext_titles_lose_their_adornment() -> None:
    text = """======
手册
======

安装
----

``include`` 不执行：

.. include:: /etc/passwd

=====  =====
列一   列二
=====  =====
甲     乙
=====  =====

细节
~~~~
文字

-----

卸载
----
"""
    loaded = load(text, "a.rst")

    assert titles(loaded) == [(1, "手册"), (2, "安装"), (3, "细节"), (2, "卸载")]
    assert heading_lines(loaded) == ["手册", "安装", "细节", "卸载"]
    assert ".. include:: /etc/passwd" in loaded.text
    assert "root:" not in loaded.text
    assert "甲     乙" in loaded.text
    assert "----\n" not in loaded.text.replace("-----\n", "")


HTML = """<!DOCTYPE html><html><head><title>站点 - 手册</title>
<style>p { color: red }</style><script>var a = "脚本";</script></head><body>
<nav><a href="/">首页</a> <a href="/b">产品</a></nav>
<p><a href="a">模块</a> | <a href="b">指令</a> | <a href="c">术语</a></p>
<h1>操作手册 <a class="permalink" href="#x">¶</a></h1>
<p>设备每天检查一次，由
班长签字。<br>Second&nbsp;line of
the text.</p>
<h2>价目</h2>
<table><caption>单位：元</caption>
<thead><tr><th>部件</th><th>价格</th></tr></thead>
<tr><td rowspan=2>滤网</td><td>35</td></tr><tr><td>36</td></tr></table>
<ul><li>一<ul><li>甲</li></ul></li><li>二</li></ul><ol><li>先</li><li>后</li></ol>
<pre>if x:
    y()</pre><select><option>语言</option></select></body></html>"""


def test_html_becomes_clean_text() -> None:
    loaded = load(HTML, "a.html")

    assert loaded.text == (
        "操作手册\n\n设备每天检查一次，由班长签字。\nSecond line of the text.\n\n"
        "价目\n\n单位：元\n\n部件 | 价格\n部件: 滤网; 价格: 35\n部件: 滤网; 价格: 36\n"
        "- 一\n  - 甲\n- 二\n1. 先\n2. 后\n\nif x:\n    y()"
    )
    assert titles(loaded) == [(1, "操作手册"), (2, "价目")]
    assert heading_lines(loaded) == ["操作手册", "价目"]


def test_the_title_of_a_page_counts_where_it_has_no_heading() -> None:
    loaded = load("<title>访客\n须知</title><p>登记后入内。", "a.htm")

    assert loaded.text == "访客须知\n\n登记后入内。"
    assert titles(loaded) == [(1, "访客须知")]


def test_a_table_used_for_layout_is_read_in_order() -> None:
    html = "<table><tr><td><h2>左</h2><p>一</p></td><td><p>二</p><p>三</p></td></tr></table>"

    assert load(html, "a.html").text == "左\n\n一\n\n二\n\n三"


def test_html_that_closes_nothing_is_read() -> None:
    loaded = load("<h1>标题<p>第一段<table><tr><td>甲<td>乙<td>丙<tr><td>1<td>2<td>3", "a.html")

    assert loaded.text == "标题\n\n第一段\n\n甲 | 乙 | 丙\n甲: 1; 乙: 2; 丙: 3"


def test_deeply_nested_html_is_read_to_its_end() -> None:
    loaded = load("<div>" * 50_000 + "深处" + "</div>" * 50_000 + "<p>末尾", "a.html")

    assert loaded.text == "深处\n\n末尾"


@pytest.mark.parametrize(
    ("head", "encoding"),
    [
        ('<meta http-equiv="Content-Type" content="text/html; charset=gb2312">', "gb18030"),
        ('<meta charset="big5">', "big5"),
        ('<?xml version="1.0" encoding="gbk"?>', "gb18030"),
    ],
)
def test_the_encoding_that_a_page_declares_is_used(head: str, encoding: str) -> None:
    loaded = load(f"{head}<p>陽</p>".encode(encoding), "a.html")

    assert (loaded.text, loaded.encoding, loaded.encoding_guessed) == ("陽", encoding, False)


def test_csv_rows_carry_their_header() -> None:
    loaded = load(
        '编号;名称;备注\r\n1;滤网;"多行\n备注; 有分号"\r\n2;光源\r\n3;泵;好;多余\r\n', "a.csv"
    )

    assert loaded.text == (
        "编号 | 名称 | 备注\n编号: 1; 名称: 滤网; 备注: 多行备注; 有分号\n编号: 2; 名称: 光源\n"
        "编号: 3; 名称: 泵; 备注: 好; 多余"
    )


@pytest.mark.parametrize(
    ("text", "name", "expected"),
    [
        ("a\tb\n1\t2\n", "a.tsv", "a | b\na: 1; b: 2"),
        ("sep=|\na|b\n1|2\n", "a.csv", "a | b\na: 1; b: 2"),
        (
            "销售表,,\n区域,一月,二月\n华东,1,2\n",
            "a.csv",
            "销售表\n区域 | 一月 | 二月\n区域: 华东; 一月: 1; 二月: 2",
        ),
        ("1,2,3\n4,5,6\n", "a.csv", "1 | 2 | 3\n4 | 5 | 6"),
        ("编号,名称\n", "a.csv", "编号 | 名称"),
        (",,\n\n,,\n", "a.csv", ""),
        ('a,b\n"开,1\n', "a.csv", "a | b\na: 开,1"),
    ],
)
def test_tables_of_many_kinds_are_read(text: str, name: str, expected: str) -> None:
    assert load(text, name).text == expected


@pytest.mark.parametrize("encoding", ["gbk", "utf-16", "utf-8-sig"])
def test_csv_is_decoded_like_any_text(encoding: str) -> None:
    data = "物料,数量\n激光器组件,4\n进风滤网,36\n".encode(encoding)

    assert load(data, "库存.csv").text.endswith("物料: 进风滤网; 数量: 36")


def test_pdf_pages_lines_and_outline_are_kept() -> None:
    wide = "设备每天检查一次并由班长签字确认后归档保存，遇到异常情况时应当立即停机并且报告主"
    pages = [
        ["公司手册 第1页", "1 日常维护", wide, "管人员。", "滤网每月更换。"],
        ["公司手册 第2页", "2 校准", "校准前预热45分钟。"],
        ["公司手册 第3页", "3 故障", "E12：行程超限。"],
        ["公司手册 第4页", "4 售后", "保修两年。"],
    ]
    loaded = load(pdf(pages, outline=[("日常维护", 0), ("校准", 1)]), "a.pdf")

    assert f"{wide}管人员。\n滤网每月更换。" in loaded.text
    starts = [loaded.text[start:].split("\n")[0] for start in loaded.pages]
    assert starts[1:] == ["公司手册 第2页", "公司手册 第3页", "公司手册 第4页"]
    assert titles(loaded) == [(1, "日常维护"), (1, "校准")]
    assert heading_lines(loaded) == ["1 日常维护", "2 校准"]


def test_running_headers_of_a_pdf_come_once() -> None:
    pages = [["光学轮廓仪维护手册 第三版 内部资料", f"内容{i}。", f"- {i + 1} -"] for i in range(6)]

    text = load(pdf(pages), "a.pdf").text

    assert text.count("内部资料") == 1
    assert "- 1 -" not in text
    assert all(f"内容{i}。" in text for i in range(6))


def test_numbered_records_of_a_pdf_are_no_running_headers() -> None:
    pages = [[f"记录 {i + 1}", f"内容{i}。"] for i in range(6)]

    assert all(f"记录 {i + 1}" in load(pdf(pages), "a.pdf").text for i in range(6))


def test_a_locked_pdf_is_named_so() -> None:
    with pytest.raises(EncryptedFileError, match="password"):
        load(pdf([["秘密"]], password="dakai"), "a.pdf")


def test_a_locked_pdf_is_read_with_a_password_that_fits() -> None:
    data = pdf([["秘密"]], password="dakai 2023")
    known = replace(LIMITS, passwords=("falsch", "dakai 2023"))

    assert load_bytes(data, "a.pdf", known).text == "秘密"
    with pytest.raises(EncryptedFileError, match="none of the setting passwords fits"):
        load_bytes(data, "a.pdf", replace(LIMITS, passwords=("falsch",)))
    assert "falsch" not in repr(known)


def test_a_pdf_that_only_its_owner_may_change_is_read() -> None:
    assert load(pdf([["可以读。"]], owner_password="nur ich"), "a.pdf").text == "可以读。"


def test_a_blank_pdf_is_empty() -> None:
    assert load(pdf([[], []]), "a.pdf").text == ""


@pytest.mark.parametrize("data", [b"%PDF-1.4\n", b"%PDF-1.4\n" + b"\x8a\x01" * 2000])
def test_a_damaged_pdf_is_corrupt(data: bytes) -> None:
    with pytest.raises(CorruptFileError, match="damaged"):
        load(data, "a.pdf")


@pytest.mark.parametrize(
    ("data", "name", "reason"),
    [
        (zip_of({"a.txt": b"x"}), "a.txt", "zip archive"),
        (b"%PDF-1.4 ...", "a.md", "a PDF"),
        (b"\x89PNG\r\n\x1a\n", "a.csv", "PNG"),
        (b"<html><p>text</p></html>", "a.pdf", "not a PDF"),
    ],
)
def test_content_that_contradicts_the_name_is_refused(data: bytes, name: str, reason: str) -> None:
    with pytest.raises(CorruptFileError, match=reason):
        load(data, name)


def test_limits_stop_files_that_are_too_much() -> None:
    with pytest.raises(LimitExceededError, match="cells"):
        load_bytes(b"a,b\n" * 60, "a.csv", replace(LIMITS, max_cells=100))
    with pytest.raises(LimitExceededError, match="cells"):
        load_bytes(b"<table>" + b"<td>x" * 101, "a.html", replace(LIMITS, max_cells=100))
    with pytest.raises(LimitExceededError, match="characters"):
        load_bytes(b"x" * 101, "a.txt", replace(LIMITS, max_text_chars=100))
    with pytest.raises(LimitExceededError, match="pages"):
        load_bytes(pdf([["a"]] * 3), "a.pdf", replace(LIMITS, max_pages=2))


def test_a_cell_that_claims_a_million_columns_costs_nothing() -> None:
    html = '<table><tr><td colspan="1000000" rowspan="1000000">a</td><td>b</td></tr></table>'

    assert load(html, "a.html").text == "a | b"


def test_the_langchain_loader_yields_one_document(tmp_path: Path) -> None:
    path = tmp_path / "手册.md"
    path.write_bytes("# 手册\n\n年假十天。\n".encode("gbk"))

    assert FileLoader(path).load() == [
        Document(
            "# 手册\n\n年假十天。\n",
            metadata={
                "source": str(path),
                "headings": [{"start": 0, "level": 1, "title": "手册"}],
                "pages": [],
                "encoding": "gb18030",
                "encoding_guessed": True,
                "notes": [],
            },
        )
    ]


@pytest.fixture(scope="module")
def parser() -> Iterator[Parser]:
    """Word documents are read in the child: importing `unstructured` here would bring torch."""
    with Parser(LIMITS) as opened:
        yield opened


@pytest.mark.slow
def test_word_documents_keep_headings_lists_and_tables(parser: Parser, tmp_path: Path) -> None:
    path = tmp_path / "blob"
    path.write_bytes(docx())

    loaded = parser.load(path, "手册.docx")

    assert loaded.text == (
        "内部文件 LX-001\n\n员工手册\n\n第一章 总则\n\n试用期为三个月，表现优秀者可提前转正。\n\n"
        "范围\n\n- 全体员工\n- 实习人员\n\n职级 | 一线城市 | 其他城市\n"
        "职级: 经理; 一线城市: 650; 其他城市: 380\n职级: 员工; 一线城市: 480; 其他城市: 280\n\n"
        "第二章 休假\n\n年假十天。"
    )
    assert titles(loaded) == [(1, "员工手册"), (2, "第一章 总则"), (3, "范围"), (2, "第二章 休假")]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("data", "error", "reason"),
    [
        (b"plain text", CorruptFileError, "not a Word document"),
        (zip_of({"a.xml": b"<a/>"}), CorruptFileError, "some other zip archive"),
        (docx()[:-400], CorruptFileError, "damaged"),
        (zip_of({"word/document.xml": b"<w:document"}), CorruptFileError, "damaged"),
        (zip_of({"word/document.xml": b" " * 80_000_000}), LimitExceededError, "unpacks to 76 MB"),
        (
            b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + "EncryptedPackage".encode("utf-16-le"),
            EncryptedFileError,
            "password",
        ),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 99, CorruptFileError, "old Office document"),
    ],
)
def test_bad_word_documents_say_why(
    parser: Parser, tmp_path: Path, data: bytes, error: type[LoadError], reason: str
) -> None:
    path = tmp_path / "a.docx"
    path.write_bytes(data)

    with pytest.raises(error, match=reason):
        parser.load(path, "a.docx")


@pytest.mark.slow
def test_the_shared_documents_are_read_as_their_manifest_expects(parser: Parser) -> None:
    folder = SHARED / "docs"
    if not folder.is_dir():
        pytest.skip("the shared data are not here")
    # Without the scans, which take most of a minute; `benchmarks.docs_manifest` reads them too.
    entries = [
        entry
        for entry in read_manifest(folder)
        if is_supported(entry["path"]) and not entry.get("ocr")
    ]

    outcomes = [judge(parser, folder, entry) for entry in entries]

    wrong = [outcome for outcome in outcomes if not outcome.is_expected]
    assert [(one.entry["path"], one.kind, one.missing, one.unwanted) for one in wrong] == []
    assert len(outcomes) > 165
