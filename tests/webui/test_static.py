"""What can be said of the page's files without a browser."""

import hashlib
import re
from pathlib import Path

import pytest

from webui import STATIC

SCRIPTS = sorted((STATIC / "js").glob("*.js"))
INDEX = (STATIC / "index.html").read_text("utf-8")


def _messages(language: str) -> dict[str, str]:
    text = (STATIC / "js" / f"messages_{language}.js").read_text("utf-8")
    entries = re.split(r"^  (?=\w+:\s)", text.split("{\n", 1)[1], flags=re.MULTILINE)[1:]
    return dict(entry.split(":", 1) for entry in entries)


def test_both_languages_say_the_same_things() -> None:
    chinese, english = _messages("zh"), _messages("en")

    assert chinese.keys() == english.keys()
    for key, sentence in chinese.items():
        used = set(re.findall(r"\{(\w+)\}", english[key]))
        assert set(re.findall(r"\{(\w+)\}", sentence)) == used, key


def test_every_message_is_used_and_exists() -> None:
    source = INDEX + "".join(
        path.read_text("utf-8") for path in SCRIPTS if not path.name.startswith("messages_")
    )
    # Built from a state or kind that the API names.
    families = ("state_", "report_", "status", "flag_", "flagHint_", "how_", "dropped_", "notice_")

    unused = [
        key
        for key in _messages("en")
        if not re.search(rf"[\"'`]{key}[\"'`]", source) and not key.startswith(families)
    ]
    missing = set(re.findall(r'data-(?:text|label|placeholder)="(\w+)"', INDEX)) - set(
        _messages("en")
    )

    assert unused == []
    assert missing == set()


def test_no_script_makes_html_or_code_from_text() -> None:
    """Names and answers are untrusted: text enters the page as text nodes only."""
    forbidden = re.compile(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|srcdoc|\beval\("
        r"|new Function|setAttribute\(\"(?:style|on)"
    )

    found = {path.name: forbidden.findall(path.read_text("utf-8")) for path in SCRIPTS}

    assert {name: uses for name, uses in found.items() if uses} == {}


def test_the_page_obeys_a_policy_without_inline_code() -> None:
    assert re.findall(r"<script(?![^>]*\bsrc=)", INDEX) == []
    assert re.findall(r"\s(?:style|on\w+)=", INDEX) == []
    assert "<style" not in INDEX


def test_the_page_refers_only_to_its_own_files() -> None:
    used = re.findall(r'(?:src|href)="([^"#][^"]*)"', INDEX)

    assert [path for path in used if not (STATIC.parent / path).is_file()] == []
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", INDEX)


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_small_begin_by_saying_what_they_are_and_import_what_exists(
    path: Path,
) -> None:
    text = path.read_text("utf-8")

    assert text.count("\n") < 250
    assert text.startswith("/*")
    for imported in re.findall(r'from "([^"]+)"', text):
        assert (path.parent / imported).is_file(), imported


def test_vendored_files_are_as_published_and_come_with_their_licence() -> None:
    listed = re.findall(
        r"^([0-9a-f]{64})  (\S+)$", (STATIC / "vendor" / "README.md").read_text(), re.M
    )

    assert listed
    for checksum, name in listed:
        file = STATIC / "vendor" / name
        assert hashlib.sha256(file.read_bytes()).hexdigest() == checksum
        assert (file.parent / "LICENSE").is_file()
