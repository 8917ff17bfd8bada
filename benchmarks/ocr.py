"""How well and how fast pages are read by OCR, with their text layer as the truth.

    python -m benchmarks.ocr FOLDER [--pages N]

Of each PDF below FOLDER the first N pages (1 by default) with at least 300 letters in a text layer
and without pictures are drawn at 200 dpi, and spoilt as a poor scanner would: turned by 1.5
degrees, blurred, noisy, JPEG at 40. Printed per page and form: the share of wrong characters (edit
distance over length, NFKC, without white space) of rapidocr as it comes and of
`ingest.loaders.ocr`, with the seconds of processor time of each. The order of the text layer is
not always the order of reading, so tables and forms look worse than they are.
"""

import argparse
import io
import time
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pypdfium2 as pdfium
import pypdfium2.raw as pdfium_raw
from PIL import Image, ImageFilter
from rapidfuzz.distance import Levenshtein
from rapidocr import RapidOCR

from ingest.loaders import ocr
from ingest.loaders.pdf_lines import clean

_MIN_LETTERS = 300
_DPI = 200


def pages(folder: Path, n_pages: int) -> Iterator[tuple[str, Image.Image, str]]:
    """Yield ``(name, picture, text)`` of pages that are all text."""
    for path in sorted(folder.rglob("*.pdf")):
        try:
            document = pdfium.PdfDocument(path)
        except pdfium.PdfiumError:  # broken and locked ones lie among them
            continue
        with document:
            n_found = 0
            for i in range(len(document)):
                page = document[i]
                text = clean(page.get_textpage().get_text_range())
                has_picture = any(page.get_objects(filter=(pdfium_raw.FPDF_PAGEOBJ_IMAGE,)))
                if has_picture or sum(map(str.isalpha, text)) < _MIN_LETTERS:
                    continue
                picture = page.render(scale=_DPI / 72).to_pil().convert("RGB")
                yield f"{path.name} {i + 1}", picture, text
                n_found += 1
                if n_found == n_pages:
                    break


def spoilt(picture: Image.Image) -> Image.Image:
    turned = picture.convert("L").rotate(1.5, Image.Resampling.BICUBIC, fillcolor=255)
    pixels = np.asarray(turned.filter(ImageFilter.GaussianBlur(0.7)), dtype=float)
    pixels += np.random.default_rng(0).normal(0, 18, pixels.shape)
    out = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(out, "JPEG", quality=40)
    return Image.open(out).convert("RGB")


def error_rate(truth: str, text: str) -> float:
    wanted, got = ("".join(unicodedata.normalize("NFKC", one).split()) for one in (truth, text))
    return Levenshtein.distance(wanted, got) / len(wanted)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--pages", type=int, default=1)
    arguments = parser.parse_args()
    plain = RapidOCR(
        params={
            "Global.log_level": "critical",
            "EngineConfig.onnxruntime.intra_op_num_threads": 1,
        }
    )
    readers: dict[str, Callable[[Image.Image], str]] = {
        "rapidocr": lambda picture: "\n".join(plain(picture).txts or ()),
        "ours": lambda picture: "\n".join(one.text for one in ocr.read_picture(picture).lines),
    }
    for read in readers.values():  # models are loaded
        read(Image.new("RGB", (200, 200), "white"))
    rows: list[list[float]] = []
    print("| page | form | rapidocr: errors | s | ours: errors | s |\n|---|---|---|---|---|---|")
    for name, clear, truth in pages(arguments.folder, arguments.pages):
        for form, picture in (("clear", clear), ("spoilt", spoilt(clear))):
            row = []
            for read in readers.values():
                started = time.process_time()
                text = read(picture)
                row += [error_rate(truth, text), time.process_time() - started]
            rows.append(row)
            print(f"| {name} | {form} | " + _cells(row) + " |", flush=True)
    print(
        "| median | | "
        + _cells([float(np.median(column)) for column in zip(*rows, strict=True)])
        + " |"
    )


def _cells(row: list[float]) -> str:
    return " | ".join(
        f"{value:.3f}" if i % 2 == 0 else f"{value:.1f}" for i, value in enumerate(row)
    )


if __name__ == "__main__":
    main()
