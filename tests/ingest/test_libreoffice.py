"""Old Office documents go through LibreOffice, or say that it is missing.

The tests put a script in its place, so that they run where it is not installed.
"""

import hashlib
import os
import time
from dataclasses import replace
from pathlib import Path
from threading import Timer

import pytest

from ingest.loaders import load_bytes, loader_version
from ingest.loaders.libreoffice import convert
from ingest.parser import Parser
from kb.errors import (
    CancelledError,
    CorruptFileError,
    EncryptedFileError,
    LimitExceededError,
    UnsupportedFormatError,
)
from tests.ingest.files_samples import LIMITS, docx
from tests.ingest.office_samples import OLE, pptx

OLD = OLE + bytes(2000)
# Takes "--outdir FOLDER SOURCE" from the end of its arguments, as LibreOffice does.
SCRIPT = """#!/bin/sh
while [ "$#" -gt 3 ]; do shift; done
[ "$1" = --outdir ] || exit 1
"""


def install(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    program = folder / "soffice"
    program.write_text(SCRIPT + script)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder) + os.pathsep + os.defpath)


def test_without_libreoffice_the_file_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(UnsupportedFormatError, match="install libreoffice"):
        convert(OLD, ".doc", LIMITS)
    with pytest.raises(UnsupportedFormatError, match="libreoffice-impress-nogui"):
        load_bytes(OLD, "a.ppt", LIMITS)


def test_an_old_presentation_is_read_as_the_new_one_it_becomes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def build(presentation) -> None:  # type: ignore[no-untyped-def]
        slide = presentation.slides.add_slide(presentation.slide_layouts[0])
        slide.shapes.title.text = "产品介绍"

    (tmp_path / "new.pptx").write_bytes(pptx(build))
    install(tmp_path, monkeypatch, f'cp "{tmp_path}/new.pptx" "${{3%.ppt}}.pptx"\n')
    path = tmp_path / "旧.ppt"
    path.write_bytes(OLD)

    with Parser(LIMITS) as parser:
        document = parser.load(path, "旧.ppt")

    assert (document.text, document.pages) == ("产品介绍", (0,))
    assert document.loader == loader_version("旧.ppt")
    assert document.size_bytes == len(OLD)
    assert document.content_hash == hashlib.sha256(OLD).hexdigest()


@pytest.mark.slow  # imports `unstructured`
def test_an_old_word_document_is_read_as_the_new_one_it_becomes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "new.docx").write_bytes(docx())
    install(tmp_path, monkeypatch, f'cp "{tmp_path}/new.docx" "${{3%.doc}}.docx"\n')
    path = tmp_path / "a.doc"
    path.write_bytes(OLD)

    with Parser(LIMITS) as parser:
        document = parser.load(path, "a.doc")

    assert "试用期为三个月" in document.text


def test_a_file_that_libreoffice_cannot_read_is_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, monkeypatch, "exit 0\n")

    with pytest.raises(CorruptFileError, match="could not read"):
        convert(OLD, ".doc", LIMITS)


def test_a_conversion_that_takes_too_long_is_ended_with_all_it_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, monkeypatch, f'sh -c "sleep 2; touch {tmp_path}/alive" &\nsleep 60\n')

    with pytest.raises(LimitExceededError, match="takes longer"):
        convert(OLD, ".doc", replace(LIMITS, timeout_s=0.3))

    time.sleep(2.5)
    assert not (tmp_path / "alive").exists()


def test_closing_the_parser_ends_a_conversion(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, monkeypatch, "sleep 60\n")
    path = tmp_path / "a.doc"
    path.write_bytes(OLD)
    parser = Parser(LIMITS)
    Timer(0.5, parser.close).start()

    with pytest.raises(CancelledError):
        parser.load(path, "a.doc")


def test_what_is_no_old_document_or_locked_is_not_converted() -> None:
    with pytest.raises(CorruptFileError, match="not an old Office document"):
        convert(b"{\\rtf1 text}", ".doc", LIMITS)
    word = OLE + bytes(504) + b"\xec\xa5" + bytes(9) + b"\x01" + bytes(500)
    with pytest.raises(EncryptedFileError, match="password"):
        convert(word, ".doc", LIMITS)
    with pytest.raises(EncryptedFileError, match="password"):
        convert(OLE + "EncryptedSummary".encode("utf-16-le"), ".ppt", LIMITS)
