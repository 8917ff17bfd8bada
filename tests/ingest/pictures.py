"""Pictures of text for the tests of OCR, drawn by the PDF renderer with the fonts it finds."""

import io
from collections.abc import Sequence

import pypdfium2 as pdfium
import pytest
from PIL import Image
from reportlab.lib.utils import ImageReader
from reportlab.pdfgen.canvas import Canvas

from tests.ingest.files_samples import pdf

CHINESE = [
    "停电检修通知",
    "因变电站检修，本周六上午八时至十二时停电。",
    "请各车间提前关闭设备，并保存数据。",
    "联系人：许南乔，电话八六一七。",
]
ENGLISH = [
    "Export compliance memo",
    "The interferometer falls under entry 2B006 of the list.",
    "Shipments need a licence, which takes 90 days to obtain.",
    "Please contact the export office before making an offer.",
]
INKED = 200  # of 255; darker is ink


def drawn(lines: Sequence[str], dpi: int = 150) -> Image.Image:
    """Return a picture of lines, cut to what is on the page."""
    with pdfium.PdfDocument(pdf([lines])) as document:
        page = document[0].render(scale=dpi / 72).to_pil().convert("RGB")
    ink = page.convert("L").point(lambda value: 255 if value < INKED else 0).getbbox()
    if ink is None:
        pytest.skip("no font for these characters is installed")
    left, top, right, bottom = ink
    return page.crop((max(left - 40, 0), max(top - 40, 0), right + 40, bottom + 40))


def encoded(picture: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    out = io.BytesIO()
    picture.save(out, kind, **options)
    return out.getvalue()


def scanned_pdf(pages: Sequence[Image.Image | str], *, stamp: str = "") -> bytes:
    """Return a PDF whose pages are full-page pictures, or text where a string is given."""
    out = io.BytesIO()
    canvas = Canvas(out)
    width, height = canvas._pagesize
    for page in pages:
        if isinstance(page, str):
            canvas.drawString(60, height - 80, page)
        else:
            canvas.drawImage(ImageReader(page), 0, 0, width, height, preserveAspectRatio=False)
            canvas.drawString(60, 20, stamp)
        canvas.showPage()
    canvas.save()
    return out.getvalue()


def on_page(picture: Image.Image) -> Image.Image:
    """Return an A4 page with the picture at its top."""
    page = Image.new("RGB", (picture.width + 200, round((picture.width + 200) * 1.414)), "white")
    page.paste(picture, (100, 150))
    return page
