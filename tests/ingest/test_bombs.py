"""Small files that would cost much are refused or read at a bounded cost, and harm no other."""

import io
import json
import struct
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from zipfile import ZipFile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.fuzz_loaders import EXTENSIONS
from ingest.loaders import load_bytes
from ingest.loaders.archive import read_member
from ingest.loaders.base import LoadedText
from ingest.loaders.chapters import find_chapters
from ingest.loaders.html_hidden import StyleSheet
from ingest.loaders.orders import find_orders, find_role_marks
from ingest.loaders.pdf_lines import clean, drop_running_lines, join_lines
from ingest.loaders.screen import screen
from ingest.loaders.whitespace import squeeze
from ingest.parser import Parser
from kb.errors import CorruptFileError, LoadError
from tests.ingest.files_samples import LIMITS, zip_of

MEMBERS = {
    "docx": "word/document.xml",
    "xlsx": "xl/workbook.xml",
    "pptx": "ppt/presentation.xml",
    "epub": "META-INF/container.xml",
    "odt": "content.xml",
}
LAUGHS = (
    '<!DOCTYPE r [<!ENTITY a "haha">'
    + "".join(f'<!ENTITY {chr(98 + i)} "{f"&{chr(97 + i)};" * 10}">' for i in range(8))
    + "]>"
)
OUTSIDE = '<!DOCTYPE r [<!ENTITY i SYSTEM "file:///etc/passwd">]>'


@pytest.fixture(scope="module")
def parser() -> Iterator[Parser]:
    limits = replace(LIMITS, timeout_s=30, memory_mb=1024)
    with Parser(limits) as opened:
        yield opened


def outcome(parser: Parser, tmp_path: Path, data: bytes | str, name: str) -> str:
    """Parse a file, then a harmless one; return the text of the first or its error."""
    path, harmless = tmp_path / "file", tmp_path / "harmless"
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    harmless.write_text("好")
    try:
        text = parser.load(path, name).text
    except LoadError as exc:
        text = f"{type(exc).__name__}: {exc}"
    assert parser.load(harmless, "harmless.txt").text == "好"
    return text


# Archives and XML


@pytest.mark.parametrize("suffix", MEMBERS)
def test_archives_that_unpack_to_much_are_refused(
    parser: Parser, tmp_path: Path, suffix: str
) -> None:
    one = zip_of({MEMBERS[suffix]: b"0" * 30_000_000})
    many = zip_of({MEMBERS[suffix]: b"x"} | {f"{i}.xml": b"0" * 300_000 for i in range(400)})

    for data in (one, many):
        found = outcome(parser, tmp_path, data, f"a.{suffix}")

        assert found.startswith("LimitExceededError: the file unpacks to")


@pytest.mark.parametrize("suffix", MEMBERS)
def test_archives_in_archives_are_not_opened(parser: Parser, tmp_path: Path, suffix: str) -> None:
    data = zip_of({MEMBERS[suffix]: zip_of({MEMBERS[suffix]: b"0" * 1_000_000})})

    assert outcome(parser, tmp_path, data, f"a.{suffix}").startswith("CorruptFileError")


def test_no_more_of_a_member_is_unpacked_than_it_declares() -> None:
    data = bytearray(zip_of({"content.xml": b"0" * 50_000_000}))
    for place in (data.rfind(b"PK\x01\x02") + 24, 22):
        struct.pack_into("<I", data, place, 10)

    with (
        ZipFile(io.BytesIO(bytes(data))) as archive,
        pytest.raises(CorruptFileError, match=r"content\.xml"),
    ):
        read_member(archive, "content.xml")


@pytest.mark.parametrize("suffix", MEMBERS)
@pytest.mark.parametrize("head", [LAUGHS, OUTSIDE], ids=["laughs", "outside"])
def test_entities_are_never_resolved(
    parser: Parser, tmp_path: Path, suffix: str, head: str
) -> None:
    data = zip_of({MEMBERS[suffix]: f"{head}<r>&i;</r>".encode()})

    found = outcome(parser, tmp_path, data, f"a.{suffix}")

    assert found.startswith("CorruptFileError")


@pytest.mark.parametrize("suffix", ["html", "xhtml", "xml", "svg"])
@pytest.mark.parametrize("head", [LAUGHS, OUTSIDE], ids=["laughs", "outside"])
def test_entities_in_pages_stay_names(
    parser: Parser, tmp_path: Path, suffix: str, head: str
) -> None:
    found = outcome(parser, tmp_path, f"{head}<p>&i;</p>", f"a.{suffix}")

    assert "root:" not in found
    assert len(found) < 2000


# Tables


def workbook(sheet: str) -> bytes:
    names = "http://schemas.openxmlformats.org"
    return zip_of(
        {
            "xl/workbook.xml": (
                f'<workbook xmlns="{names}/spreadsheetml/2006/main" '
                f'xmlns:r="{names}/officeDocument/2006/relationships">'
                '<sheets><sheet name="a" sheetId="1" r:id="r1"/></sheets></workbook>'
            ).encode(),
            "xl/_rels/workbook.xml.rels": (
                f'<Relationships xmlns="{names}/package/2006/relationships"><Relationship Id="r1" '
                'Type="x/worksheet" Target="worksheets/sheet1.xml"/></Relationships>'
            ).encode(),
            "xl/worksheets/sheet1.xml": (
                f'<worksheet xmlns="{names}/spreadsheetml/2006/main">{sheet}</worksheet>'
            ).encode(),
        }
    )


def test_a_sheet_of_a_million_cells_is_refused(parser: Parser, tmp_path: Path) -> None:
    row = "<row>" + "<c><v>1</v></c>" * 1000 + "</row>"
    found = outcome(parser, tmp_path, workbook(f"<sheetData>{row * 1000}</sheetData>"), "a.xlsx")

    assert found == "LimitExceededError: the file holds more than 100,000 table cells; split it"


def test_a_cell_far_away_costs_nothing(parser: Parser, tmp_path: Path) -> None:
    sheet = (
        '<sheetData><row r="1"><c r="A1"><v>1</v></c></row>'
        '<row r="1048576"><c r="XFD1048576"><v>2</v></c></row></sheetData>'
        '<mergeCells><mergeCell ref="A1:XFD1048576"/></mergeCells>'
    )

    assert outcome(parser, tmp_path, workbook(sheet), "a.xlsx").startswith("a\n")


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.csv", "x," * 1_000_000),
        ("a.html", "<table>" + "<tr><td>1<td>2" * 100_000 + "</table>"),
        ("a.rtf", "{\\rtf1 " + "\\intbl x\\cell" * 200_000 + "\\row}"),
        ("a.json", json.dumps([[1, 2]] * 100_000)),
    ],
)
def test_tables_with_too_many_cells_are_refused(
    parser: Parser, tmp_path: Path, name: str, data: str
) -> None:
    found = outcome(parser, tmp_path, data, name)

    assert found == "LimitExceededError: the file holds more than 100,000 table cells; split it"


def test_cells_that_span_everything_are_refused_or_small(parser: Parser, tmp_path: Path) -> None:
    row = "<tr>" + "<th colspan=1000 rowspan=65000>x" * 100

    found = outcome(parser, tmp_path, f"<table>{row * 100}</table>", "a.html")

    assert found.startswith("LimitExceededError") or len(found) < 1_000_000


# PDF


def pdf_of(
    content: bytes,
    *,
    n_pages: int = 1,
    filters: bytes = b"/FlateDecode",
    form: bytes = b"/X Do",
) -> bytes:
    """Return a PDF whose pages are all the same object with this (packed) content.

    The form /X has the content `form`, by default itself.
    """
    objects = [
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Count %d/Kids[%s]>>" % (n_pages, b"3 0 R " * n_pages),
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 600 800]/Contents 4 0 R"
        b"/Resources<</Font<</F 5 0 R>>/XObject<</X 6 0 R>>>>>>",
        b"<</Length %d/Filter[%s]>>stream\n%s\nendstream" % (len(content), filters, content),
        b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>",
        b"<</Type/XObject/Subtype/Form/BBox[0 0 600 800]/Resources<</XObject<</X 6 0 R>>>>"
        b"/Length %d>>stream\n%s\nendstream" % (len(form), form),
    ]
    out = b"%PDF-1.5\n"
    places = []
    for number, item in enumerate(objects, start=1):
        places.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, item)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    return (
        out
        + b"xref\n0 %d\n0000000000 65535 f \n%s" % (len(objects) + 1, table)
        + b"trailer\n<</Size %d/Root 1 0 R>>\nstartxref\n%d\n%%%%EOF" % (len(objects) + 1, len(out))
    )


def test_a_pdf_of_100_000_pages_is_refused(parser: Parser, tmp_path: Path) -> None:
    data = pdf_of(zlib.compress(b""), n_pages=100_000)

    found = outcome(parser, tmp_path, data, "a.pdf")

    assert found == "LimitExceededError: the PDF has 100,000 pages, more than 200; split it"


def test_a_pdf_that_draws_itself_is_read(parser: Parser, tmp_path: Path) -> None:
    content = b"/X Do BT /F 12 Tf 50 700 Td (hello) Tj ET"

    assert outcome(parser, tmp_path, pdf_of(zlib.compress(content)), "a.pdf") == "hello"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("content", "filters"),
    [
        (zlib.compress(b"BT /F 12 Tf 50 700 Td (hello) Tj ET\n" * 3_000_000), b"/FlateDecode"),
        (
            zlib.compress(zlib.compress(b" " * 1_500_000_000, 1)),
            b"/FlateDecode/FlateDecode",
        ),
    ],
    ids=["text", "twice packed"],
)
def test_an_enormous_stream_of_a_pdf_is_given_up(
    parser: Parser, tmp_path: Path, content: bytes, filters: bytes
) -> None:
    found = outcome(parser, tmp_path, pdf_of(content, filters=filters), "a.pdf")

    assert found == "" or "Error: " in found


# Nesting


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.json", "[" * 100_000 + "]" * 100_000),
        ("a.ipynb", '{"cells":' + "[" * 100_000),
        ("a.html", "<div style='color:#fff'>" * 100_000 + "x"),
        ("a.html", "<table><tr><td>x<td>" * 2_000 + "x"),
        ("a.html", "<ul><li>" * 20_000 + "x"),
        ("a.rtf", "{\\rtf1 " + "{" * 100_000 + "x"),
        ("a.eml", "From: a\nContent-Type: message/rfc822\n\n" * 500 + "From: a\n\nx"),
        (
            "a.eml",
            "From: a\nMIME-Version: 1.0\n"
            + "".join(
                f"Content-Type: multipart/mixed; boundary=b{i}\n\n--b{i}\n" for i in range(500)
            ),
        ),
        ("a.md", "> " * 100_000 + "x"),
    ],
    ids=lambda value: value[:12],
)
def test_deep_nesting_ends_in_a_text_or_a_reason(
    parser: Parser, tmp_path: Path, name: str, data: str
) -> None:
    started = time.monotonic()

    found = outcome(parser, tmp_path, data, name)

    assert "made the parser crash" not in found
    assert "takes longer" not in found
    assert "could not be read; it may be damaged" not in found
    assert time.monotonic() - started < 30


# Patterns


def _quadratic_styles(text: str) -> object:
    return StyleSheet(f"<style>{text}</style>")


HOSTILE = (
    " ",
    "\n",
    "a ",
    "1.",
    "一、",
    "第",
    "第一",
    "<style",
    "/*",
    "{a:",
    "}",
    "<link ",
    "ignore ",
    "as a ",
    "之前的",
    "\u200b",
    "a\u200b",
    "\U000e0041",
    "\ufe0f",
    "\ufffe",
    "\u202b",
    "[",
    "<|a",
    "#",
    "0;",
    ".a",
    "-",
    "——",
)
PATTERNS: dict[str, Callable[[str], object]] = {
    "chapters": find_chapters,
    "orders": find_orders,
    "role marks": find_role_marks,
    "screen": lambda text: screen(LoadedText(text)),
    "styles": _quadratic_styles,
    "squeeze": squeeze,
    "pdf lines": lambda text: clean(text),
    "pdf paragraphs": lambda text: list(join_lines([text, text], ())),
    "running lines": lambda text: drop_running_lines([[text]] * 3),
}


@pytest.mark.parametrize("pattern", PATTERNS)
def test_time_grows_linearly_with_hostile_text(pattern: str) -> None:
    """Where time grew with the square, 200,000 characters would take minutes and more."""
    run = PATTERNS[pattern]
    for piece in HOSTILE:
        text = piece * (200_000 // len(piece))
        started = time.process_time()

        run(text)

        assert time.process_time() - started < 5, (pattern, piece)


# Anything


@given(st.binary(max_size=300), st.sampled_from(EXTENSIONS))
def test_any_bytes_are_a_document_or_a_reason(data: bytes, suffix: str) -> None:
    try:
        loaded = load_bytes(data, f"a{suffix}", LIMITS)
    except LoadError as exc:
        reason = str(exc)
    else:
        reason = "read"
        assert all(0 <= heading.start <= len(loaded.text) for heading in loaded.headings)

    assert reason.strip()
