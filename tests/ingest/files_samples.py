"""Files that the loader and parser tests read, made on the spot."""

import io
from collections.abc import Sequence
from zipfile import ZIP_DEFLATED, ZipFile

from docx import Document
from PIL import Image
from reportlab.lib.pdfencrypt import StandardEncryption
from reportlab.lib.utils import ImageReader
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.cidfonts import UnicodeCIDFont
from reportlab.pdfgen.canvas import Canvas

from ingest.loaders.base import ParseLimits

LIMITS = ParseLimits(
    timeout_s=60,
    memory_mb=2048,
    max_file_mb=50,
    max_pages=200,
    max_cells=100_000,
    max_text_chars=5_000_000,
)


PICTURE = ("a page that holds a picture",)


def pdf(
    pages: Sequence[Sequence[str]],
    *,
    password: str = "",
    owner_password: str = "",
    outline: Sequence[tuple[str, int]] = (),
) -> bytes:
    """Return a PDF of lines; `outline` gives ``(title, page index)`` bookmarks.

    `PICTURE` in place of a page's lines makes it hold a picture and no text.
    """
    pdfmetrics.registerFont(UnicodeCIDFont("STSong-Light"))
    out = io.BytesIO()
    lock = None
    if password or owner_password:
        lock = StandardEncryption(password, owner_password or None, canPrint=1)
    canvas = Canvas(out, encrypt=lock)
    for number, lines in enumerate(pages):
        for title, page in outline:
            if page == number:
                canvas.bookmarkPage(title)
                canvas.addOutlineEntry(title, title, level=0)
        if lines is PICTURE:
            canvas.drawImage(ImageReader(Image.new("RGB", (80, 60), "navy")), 100, 500)
            canvas.showPage()
            continue
        canvas.setFont("STSong-Light", 12)
        for i, line in enumerate(lines):
            canvas.drawString(50, 800 - 20 * i, line)
        canvas.showPage()
    canvas.save()
    return out.getvalue()


def docx() -> bytes:
    """Return a Word document with headings, a list, a table and a page header."""
    document = Document()
    document.sections[0].header.paragraphs[0].text = "内部文件 LX-001"
    document.add_paragraph("员工手册", style="Title")
    document.add_heading("第一章 总则", level=1)
    paragraph = document.add_paragraph("试用期")
    paragraph.add_run("为三个月").bold = True
    paragraph.add_run("，表现优秀者可提前转正。")
    document.add_heading("范围", level=2)
    document.add_paragraph("全体员工", style="List Bullet")
    document.add_paragraph("实习人员", style="List Bullet")
    table = document.add_table(rows=3, cols=3)
    for row, cells in zip(
        table.rows,
        [("职级", "一线城市", "其他城市"), ("经理", "650", "380"), ("员工", "480", "280")],
        strict=True,
    ):
        for cell, text in zip(row.cells, cells, strict=True):
            cell.text = text
    document.add_page_break()
    document.add_heading("第二章 休假", level=1)
    document.add_paragraph("年假十天。")
    out = io.BytesIO()
    document.save(out)
    return out.getvalue()


def zip_of(members: dict[str, bytes]) -> bytes:
    """Return a zip archive of the members."""
    out = io.BytesIO()
    with ZipFile(out, "w", ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return out.getvalue()
