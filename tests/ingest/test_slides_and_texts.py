"""Presentations, OpenDocument, RTF and e-books keep slides, headings, lists and tables."""

from dataclasses import replace
from typing import Any

import pytest

from ingest.loaders import load_bytes
from kb.errors import CorruptFileError, EncryptedFileError, LimitExceededError
from kb.records import Flag
from tests.ingest.files_samples import LIMITS, zip_of
from tests.ingest.loading import heading_lines, load, titles
from tests.ingest.office_samples import OLE, changed, epub, odt, pptx


def three_slides(presentation: Any) -> None:
    first = presentation.slides.add_slide(presentation.slide_layouts[1])
    first.shapes.title.text = "产品介绍"
    first.placeholders[1].text = "精度高\n速度快"
    first.placeholders[1].text_frame.paragraphs[1].level = 1
    first.notes_slide.notes_text_frame.text = "先问好。"
    presentation.slides.add_slide(presentation.slide_layouts[6])
    last = presentation.slides.add_slide(presentation.slide_layouts[6])
    last._element.set("show", "0")
    box = last.shapes.add_textbox(0, 0, 100, 100)
    box.text_frame.text = "价目"
    group = last.shapes.add_group_shape()
    group.shapes.add_textbox(0, 0, 10, 10).text_frame.text = "组内文字"
    table = last.shapes.add_table(3, 3, 0, 0, 100, 100).table
    for row, texts in enumerate([("部件", "价格", "单位"), ("滤网", "35", "元"), ("", "36", "元")]):
        for column, text in enumerate(texts):
            table.cell(row, column).text = text
    table.cell(1, 0).merge(table.cell(2, 0))


def test_slides_are_pages_with_titles_notes_groups_and_tables() -> None:
    loaded = load(pptx(three_slides), "介绍.pptx")

    assert loaded.text == (
        "产品介绍\n\n精度高\n  速度快\n\nNotes: 先问好。\n\n"
        "价目\n\n组内文字\n\n部件 | 价格 | 单位\n部件: 滤网; 价格: 35; 单位: 元\n"
        "部件: 滤网; 价格: 36; 单位: 元"
    )
    assert titles(loaded) == [(1, "产品介绍"), (1, "价目")]
    assert len(loaded.pages) == 3
    assert loaded.text[loaded.pages[2] :].startswith("价目")
    text = "slide 3 is hidden in the presentation; the text is included"
    assert loaded.flags == (Flag("hidden_part", text),)


def test_a_show_is_read_like_a_presentation() -> None:
    show = changed(
        pptx(three_slides),
        "[Content_Types].xml",
        "presentationml.presentation.main+xml",
        "presentationml.slideshow.main+xml",
    )

    assert load(show, "a.ppsx").text.startswith("产品介绍")


def test_a_presentation_without_text_is_empty() -> None:
    data = pptx(lambda presentation: presentation.slides.add_slide(presentation.slide_layouts[6]))

    assert load(data, "a.pptx").text.strip() == ""


def test_a_presentation_of_too_many_slides_is_refused() -> None:
    with pytest.raises(LimitExceededError, match="slides"):
        load_bytes(pptx(three_slides), "a.pptx", replace(LIMITS, max_pages=2))


ODT = """<text:tracked-changes><text:p>删去的</text:p></text:tracked-changes>
<text:h text:outline-level="1">会议<text:span>纪要</text:span></text:h>
<text:p>时间：<text:s text:c="4"/>九月<office:annotation><text:p>批注</text:p></office:annotation>
<text:line-break/>地点：四楼<text:note><text:note-citation>1</text:note-citation><text:note-body>
<text:p>东侧</text:p></text:note-body></text:note></text:p>
<text:section><text:h text:outline-level="2">决议</text:h></text:section>
<text:list><text:list-item><text:p>一</text:p><text:list><text:list-item><text:p>甲</text:p>
</text:list-item></text:list></text:list-item><text:list-item><text:p>二</text:p></text:list-item>
</text:list>
<table:table><table:table-header-rows><table:table-row><table:table-cell><text:p>任务</text:p>
</table:table-cell><table:table-cell><text:p>负责人</text:p></table:table-cell></table:table-row>
</table:table-header-rows><table:table-row><table:table-cell table:number-rows-spanned="2">
<text:p>改进</text:p></table:table-cell><table:table-cell><text:p>许南乔</text:p></table:table-cell>
</table:table-row><table:table-row><table:covered-table-cell/><table:table-cell><text:p>林晚照
</text:p></table:table-cell><table:table-cell table:number-columns-repeated="16384"/>
</table:table-row></table:table><text:p><text:soft-page-break/>散会。</text:p>"""


def test_opendocument_keeps_headings_lists_and_tables() -> None:
    loaded = load(odt(ODT), "纪要.odt")

    assert loaded.text == (
        "会议纪要\n\n时间： 九月\n地点：四楼 ( 东侧 )\n\n决议\n\n- 一\n  - 甲\n- 二\n\n"
        "任务 | 负责人\n任务: 改进; 负责人: 许南乔\n任务: 改进; 负责人: 林晚照\n\n散会。"
    ).replace("( 东侧 )", "(东侧)")
    assert titles(loaded) == [(1, "会议纪要"), (2, "决议")]


def test_opendocument_cells_are_limited() -> None:
    row = (
        '<table:table-row><table:table-cell table:number-columns-repeated="900"/></table:table-row>'
    )

    with pytest.raises(LimitExceededError, match="cells"):
        load(odt(f"<table:table>{row * 200}</table:table>"), "a.odt")


RTF = rb"""{\rtf1\ansi\ansicpg936\deff0{\fonttbl{\f0\fnil\fcharset134 SimSun;}{\f1\fcharset0 Arial;}
{\f2\fcharset136 MingLiU;}}{\stylesheet{\s0 Normal;}{\s1\b heading 1;}}
{\*\generator x;}{\info{\title secret}}{\header\pard page head\par}
\pard\s1\f0 \'b1\'a3\'c3\'dc\'d0\'ad\'d2\'e9\par
\pard\plain\f0 A\'a1\'a3 \u20445?\u23494 ?\uc2\u-10179\'3f\'3f\u-8704??{\v hidden}\f2 \'a4\'a4\par
\pard{\listtext 1.\tab}first\line second\tab end\~x\{\}\\\par
\trowd\pard\intbl\f0 \'c3\'fb\cell \'bc\'db\cell num\cell\row
\pard\intbl a\par b\cell 2\cell 3\cell\row
\pard\outlinelevel1 Two\par{\pict 010203}\bin3 {{{\pard end\par}"""


def test_rtf_is_decoded_and_keeps_headings_and_tables() -> None:
    loaded = load(RTF, "协议.rtf")

    assert loaded.text == (
        "保密协议\n\nA。 保密😀中\n\n1. first\nsecond end x{}\\\n\n"
        "名 | 价 | num\n名: a b; 价: 2; num: 3\n\nTwo\n\nend"
    )
    assert titles(loaded) == [(1, "保密协议"), (2, "Two")]
    assert loaded.notes == ()


def test_rtf_that_ends_early_is_read_and_noted() -> None:
    loaded = load(RTF[:-20], "a.rtf")

    assert loaded.text.startswith("保密协议")
    assert loaded.notes == ("the file is cut off at its end",)


def test_rtf_that_nests_without_end_is_refused() -> None:
    with pytest.raises(LimitExceededError, match="nests"):
        load(b"{\\rtf1" + b"{" * 100_000, "a.rtf")


def test_books_are_read_in_order_below_their_title() -> None:
    chapters = (
        "<h1>设备手册</h1><p>前言。</p>",
        "<h1>开机<a id='x'/></h1><script/><p>先预热。</p><h2>注意</h2><p>勿触摸。</p>",
        "<p>没有标题的一章&nbsp;。</p>",
        "<p></p>",
    )
    loaded = load(epub(chapters, contents=("前言", "开机", "附录")), "手册.epub")

    assert loaded.text == (
        "设备手册\n\n前言\n\n前言。\n\n开机\n\n先预热。\n\n注意\n\n勿触摸。\n\n"
        "附录\n\n没有标题的一章 。"
    )
    assert titles(loaded) == [(1, "设备手册"), (2, "前言"), (2, "开机"), (3, "注意"), (2, "附录")]
    assert heading_lines(loaded) == ["设备手册", "前言", "开机", "注意", "附录"]


def test_a_missing_chapter_is_noted_and_a_locked_book_refused() -> None:
    package = b"""<package><manifest><item id="a" href="a.xhtml"/><item id="b" href="b.xhtml"/>
        </manifest><spine><itemref idref="a"/><itemref idref="b"/></spine></package>"""
    container = b'<container><rootfile full-path="p.opf"/></container>'
    members = {"META-INF/container.xml": container, "p.opf": package, "a.xhtml": b"<p>text</p>"}

    loaded = load(zip_of(members), "a.epub")

    assert (loaded.text, loaded.notes) == ("text", ("chapter 'b.xhtml' is missing or damaged",))
    members["META-INF/encryption.xml"] = b"<encryption><EncryptedData/></encryption>"
    with pytest.raises(EncryptedFileError, match="DRM"):
        load(zip_of(members), "a.epub")


LAUGHS = b'<!DOCTYPE a [<!ENTITY b "ha"><!ENTITY c "&b;&b;">]><a>&c;</a>'


@pytest.mark.parametrize(
    ("data", "name", "reason"),
    [
        (b"text", "a.pptx", "not a PowerPoint"),
        (pptx(three_slides)[:-500], "a.pptx", "damaged"),
        (zip_of({"ppt/presentation.xml": b"<p"}), "a.pptx", "damaged"),
        (OLE + bytes(99), "a.pptx", "old Office document"),
        (b"text", "a.odt", "not an OpenDocument"),
        (odt("<text:p>x</text:p>")[:-60], "a.odt", "damaged"),
        (zip_of({"content.xml": b"<a><body><spreadsheet/></body></a>"}), "a.odt", "another Open"),
        (zip_of({"content.xml": LAUGHS}), "a.odt", "entities"),
        (b"plain", "a.rtf", "not an RTF"),
        (b"plain", "a.epub", "not an e-book"),
        (epub(["<p>x</p>"])[:-80], "a.epub", "damaged"),
        (zip_of({"META-INF/container.xml": LAUGHS}), "a.epub", "entities"),
        (zip_of({"META-INF/container.xml": b"<container/>"}), "a.epub", "does not say"),
        (b"{\\rtf1 x}", "a.txt", "RTF"),
    ],
)
def test_bad_files_say_why(data: bytes, name: str, reason: str) -> None:
    with pytest.raises(CorruptFileError, match=reason):
        load(data, name)


def test_locked_documents_are_named_so() -> None:
    locked = OLE + bytes(100) + "EncryptedPackage".encode("utf-16-le")
    manifest = b'<m xmlns:x="urn:x"><x:file-entry><x:encryption-data/></x:file-entry></m>'

    with pytest.raises(EncryptedFileError, match="password"):
        load(locked, "a.pptx")
    with pytest.raises(EncryptedFileError, match="password"):
        load(odt("<text:p>x</text:p>", **{"META-INF/manifest.xml": manifest}), "a.odt")
