"""Text in pictures and scans: found, in order, turned the right way up, doubted where unclear."""

import io
import random
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image, ImageFilter
from rapidfuzz.distance import Levenshtein

from ingest.loaders import load_bytes, ocr, progress
from ingest.loaders.ocr_notes import confidence_notes, pages_named
from ingest.parser import Parser
from kb.errors import CorruptFileError, LimitExceededError, UnsupportedFormatError
from tests.ingest.files_samples import LIMITS, PICTURE, pdf
from tests.ingest.loading import load
from tests.ingest.pictures import CHINESE, ENGLISH, drawn, encoded, on_page, scanned_pdf

NO_OCR = replace(LIMITS, max_ocr_pages=0)


def flat(text: str) -> str:
    return "".join(unicodedata.normalize("NFKC", text).split())


def error_rate(lines: list[str], text: str) -> float:
    """Return the characters that differ per character, without white space."""
    truth = flat("".join(lines))
    return Levenshtein.distance(truth, flat(text)) / len(truth)


def scanned(picture: Image.Image, *, skew: float = 0.0, noise: float = 15.0) -> Image.Image:
    """Return the picture as a poor scanner would: turned a little, blurred, noisy, grey."""
    turned = picture.convert("L").rotate(skew, Image.Resampling.BICUBIC, expand=True, fillcolor=255)
    pixels = np.asarray(turned.filter(ImageFilter.GaussianBlur(0.7)), dtype=float)
    pixels += np.random.default_rng(0).normal(0, noise, pixels.shape)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).convert("RGB")


@pytest.fixture
def begun() -> Iterator[list[str]]:
    """Collects a mark for each part that is begun."""
    marks: list[str] = []
    before = progress.next_part
    progress.next_part = lambda: marks.append("part")
    yield marks
    progress.next_part = before


@pytest.mark.parametrize("lines", [CHINESE, ENGLISH])
def test_a_picture_of_text_is_read(lines: list[str]) -> None:
    loaded = load(encoded(drawn(lines)), "a.png")

    assert error_rate(lines, loaded.text) <= 0.03
    assert loaded.pages == ()
    (note,) = loaded.notes
    assert note.startswith("page 1 was read by OCR, confidence 0.9") or note.endswith("1.00")


@pytest.mark.slow
@pytest.mark.parametrize("degrees", [90, 180, 270])
@pytest.mark.parametrize("lines", [CHINESE, ENGLISH])
def test_a_page_that_lies_or_stands_on_its_head_is_read(lines: list[str], degrees: int) -> None:
    picture = drawn(lines).rotate(degrees, expand=True)

    assert error_rate(lines, load(encoded(picture), "a.png").text) <= 0.03


@pytest.mark.slow
@pytest.mark.parametrize("skew", [-4.0, 3.0])
@pytest.mark.parametrize("lines", [CHINESE, ENGLISH])
def test_a_poor_scan_is_read_line_by_line(lines: list[str], skew: float) -> None:
    picture = scanned(drawn(lines), skew=skew)

    assert error_rate(lines, load(encoded(picture, "JPEG", quality=50), "a.jpg").text) <= 0.05


@pytest.mark.slow
def test_grey_on_grey_and_white_on_black_are_read() -> None:
    picture = drawn(CHINESE)
    pale = picture.point(lambda value: 140 + value // 5)
    inverted = picture.point(lambda value: 255 - value)

    for variant in (pale, inverted):
        assert error_rate(CHINESE, load(encoded(variant), "a.png").text) <= 0.05


@pytest.mark.slow
def test_two_columns_with_a_narrow_gutter_are_read_one_after_the_other() -> None:
    words = random.Random(1).choices(" ".join(ENGLISH).lower().split(), k=160)
    left = [" ".join(words[i : i + 8]) for i in range(0, 80, 8)]
    right = [" ".join(words[i : i + 8]) for i in range(80, 160, 8)]
    one, two = drawn(left), drawn(right)
    page = Image.new("RGB", (one.width + two.width - 40, one.height), "white")
    page.paste(one, (0, 0))
    page.paste(two.crop((30, 0, two.width, two.height)), (one.width - 20, 7))

    assert error_rate([*left, *right], load(encoded(page), "a.png").text) <= 0.05


@pytest.mark.slow
def test_a_long_picture_of_a_chat_is_read_in_pieces(begun: list[str]) -> None:
    lines = [f"{i}. {CHINESE[i % 4]}" for i in range(36)]
    picture = drawn(lines[:36])
    long = Image.new("RGB", (picture.width, 2 * picture.height), "white")
    long.paste(picture, (0, 0))
    long.paste(picture, (0, picture.height))

    read = ocr.read_picture(long)

    assert error_rate(lines * 2, "".join(line.text for line in read.lines)) <= 0.03
    assert len(begun) > 1
    tops = [line.box[1] for line in read.lines]
    assert tops == sorted(tops)


@pytest.mark.parametrize(
    "picture",
    [
        Image.new("RGB", (300, 300), "white"),
        Image.radial_gradient("L").convert("RGB"),
        Image.new("RGB", (9, 900), "navy"),
        Image.new("RGB", (20, 2200), "navy"),
        Image.new("RGB", (4000, 20), "navy"),
    ],
)
def test_a_picture_without_text_is_empty(picture: Image.Image) -> None:
    loaded = load(encoded(picture), "a.png")

    assert (loaded.text, loaded.notes) == ("", ())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "name"), [("JPEG", "a.jpeg"), ("BMP", "a.bmp"), ("WEBP", "a.webp"), ("GIF", "a.gif")]
)
def test_every_format_is_read_whatever_the_extension(kind: str, name: str) -> None:
    data = encoded(drawn(ENGLISH), kind)

    assert error_rate(ENGLISH, load(data, name).text) <= 0.03
    assert load(data, "a.png").text == load(data, name).text


@pytest.mark.slow
def test_pages_of_a_tiff_are_pages_up_to_the_limit() -> None:
    chinese, english = drawn(CHINESE), drawn(ENGLISH)
    blank = Image.new("RGB", (200, 200), "white")
    data = encoded(chinese, "TIFF", save_all=True, append_images=[blank, english, blank])

    loaded = load_bytes(data, "a.tif", replace(LIMITS, max_ocr_pages=3))

    assert error_rate(CHINESE + ENGLISH, loaded.text) <= 0.03
    assert len(loaded.pages) == 3
    assert flat(loaded.text[loaded.pages[2] :]).startswith(flat(ENGLISH[0])[:6])
    assert loaded.notes[0].startswith("pages 1, 3 were read by OCR")
    assert loaded.notes[1:] == (
        "page 4 not read: max_ocr_pages is 3",
        "OCR found no text on page 2",
    )


@pytest.mark.slow
def test_a_picture_that_names_its_resolution_is_read() -> None:
    """Pillow gives the resolution of some JPEGs as fractions that do not divide."""
    exif = Image.Exif()
    exif[0x011A], exif[0x011B], exif[0x0128] = 72.5, 72.5, 2
    data = encoded(drawn(ENGLISH), "JPEG", exif=exif)

    assert error_rate(ENGLISH, load(data, "a.jpg").text) <= 0.03


@pytest.mark.slow
def test_a_photo_is_turned_as_its_camera_says() -> None:
    turned = drawn(ENGLISH[:1]).rotate(180)
    exif = Image.Exif()
    exif[0x0112] = 3  # orientation: upside down

    assert error_rate(ENGLISH[:1], load(encoded(turned, "JPEG", exif=exif), "a.jpg").text) <= 0.05


@pytest.mark.slow
def test_what_shines_through_and_many_bits_are_no_obstacle() -> None:
    grey = drawn(ENGLISH).convert("L")
    ink = grey.point(lambda value: 255 - value)
    black = Image.merge("LA", (Image.new("L", grey.size, 0), ink))
    white = Image.merge("LA", (Image.new("L", grey.size, 255), ink))
    deep = Image.fromarray(np.asarray(grey).astype(np.uint16) * 200)

    for picture in (black, white, deep, grey.convert("1"), grey.convert("P")):
        assert error_rate(ENGLISH, load(encoded(picture), "a.png").text) <= 0.03


@pytest.mark.slow
def test_a_fax_with_flat_pixels_is_read() -> None:
    picture = drawn(CHINESE, dpi=200).convert("L")
    fax = picture.resize((picture.width, picture.height // 2)).convert("1")
    data = encoded(fax, "TIFF", compression="group4", dpi=(204, 98))

    assert error_rate(CHINESE, load(data, "a.tiff").text) <= 0.1


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "BMP", "WEBP", "GIF"])
def test_a_damaged_picture_says_so(kind: str) -> None:
    data = encoded(Image.radial_gradient("L").convert("RGB"), kind)

    with pytest.raises(CorruptFileError, match="damaged"):
        load(data[: len(data) // 3], "a.png")
    with pytest.raises(CorruptFileError, match="no picture"):
        load(b"plain text", "a.png")


def test_a_picture_of_too_many_pixels_is_refused_before_it_is_unpacked() -> None:
    for side in (11_000, 20_000):
        data = encoded(Image.new("1", (side, side)))
        assert len(data) < 1_000_000

        with pytest.raises(LimitExceededError, match="pixels"):
            load(data, "a.png")


def test_a_picture_as_long_as_a_hundred_pages_is_refused() -> None:
    with pytest.raises(LimitExceededError, match="160 times as high as wide"):
        load(encoded(Image.new("L", (200, 32_000), "white")), "a.png")


def test_ocr_can_be_turned_off() -> None:
    with pytest.raises(UnsupportedFormatError, match="max_ocr_pages"):
        load_bytes(encoded(Image.new("L", (50, 50))), "a.png", NO_OCR)
    with pytest.raises(UnsupportedFormatError, match="max_ocr_pages"):
        load_bytes(pdf([PICTURE]), "a.pdf", NO_OCR)

    loaded = load_bytes(pdf([["第一页。"], PICTURE]), "a.pdf", NO_OCR)

    assert loaded.notes == ("page 2 needs OCR, which was not done: max_ocr_pages is 0",)


def test_a_page_needs_ocr_when_its_text_layer_is_nothing_or_hardly_anything() -> None:
    noise = Image.effect_noise((400, 560), 90).convert("RGB")
    text = "A page of text that was typed needs no OCR, whatever stands on the next. " * 2
    data = scanned_pdf([text, noise, text], stamp="Scanned by somebody, page 2")

    assert load_bytes(data, "a.pdf", NO_OCR).notes == (
        "page 2 needs OCR, which was not done: max_ocr_pages is 0",
    )


def test_a_page_of_characters_that_only_its_font_knows_needs_ocr() -> None:
    private = "\ue000\ue001\ue002\ue003" * 20
    data = pdf([["第一页。"], [private]])

    loaded = load_bytes(data, "a.pdf", NO_OCR)

    assert loaded.notes == ("page 2 needs OCR, which was not done: max_ocr_pages is 0",)


@pytest.mark.slow
def test_scanned_pages_of_a_pdf_are_read_and_typed_ones_stay_as_they_are() -> None:
    typed = "Typed on page two."
    data = scanned_pdf([on_page(drawn(CHINESE)), typed, on_page(drawn(ENGLISH))], stamp="p 7")

    loaded = load(data, "a.pdf")

    first, second, third = loaded.pages
    assert error_rate([*CHINESE, "p 7"], loaded.text[first:second]) <= 0.03
    assert loaded.text[second:third].strip() == typed
    assert error_rate([*ENGLISH, "p 7"], loaded.text[third:]) <= 0.03
    assert re.match(r"pages 1, 3 were read by OCR, confidence (0\.9|1\.0)", loaded.notes[0])


def test_a_picture_in_which_nothing_is_written_is_noted() -> None:
    loaded = load(pdf([["第一页的文字。"], PICTURE, ["第三页的文字。"], []]), "a.pdf")

    assert loaded.notes == ("page 2 holds only pictures in which OCR found no text",)
    assert len(loaded.pages) == 4
    assert load(pdf([PICTURE]), "a.pdf").text == ""


def test_doubtful_pages_are_named() -> None:
    notes = list(confidence_notes({0: 0.99, 1: 0.97, 2: 0.95, 6: 0.61}))

    assert notes == [
        "pages 1-3, 7 were read by OCR, confidence 0.88",
        "page 7 is hard to read (confidence from 0.61): compare the text with the original",
    ]
    assert pages_named(list(range(0, 100, 2))).endswith("39 and 30 more")


@pytest.mark.slow
def test_the_child_that_read_a_scan_stays_and_fits_into_the_memory(tmp_path: Path) -> None:
    path = tmp_path / "scan.pdf"
    path.write_bytes(scanned_pdf([on_page(drawn(CHINESE))]))
    others = psutil.Process().children()
    with Parser(LIMITS) as parser:
        first = parser.load(path, path.name)
        (child,) = [process for process in psutil.Process().children() if process not in others]

        assert parser.load(path, path.name).text == first.text
        assert psutil.Process().children() == [*others, child]
        assert child.memory_info().rss < 1024 << 20


def test_each_page_renews_the_time_limit(begun: list[str]) -> None:
    out = io.BytesIO()
    Image.new("RGB", (64, 64), "white").save(
        out, "TIFF", save_all=True, append_images=[Image.new("RGB", (64, 64), "white")] * 2
    )

    load(out.getvalue(), "a.tiff")

    assert begun == ["part"] * 3
