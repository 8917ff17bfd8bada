"""Chunks tile the text, keep their sizes, and an edit changes only those around it."""

import random
import time
import unicodedata
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.documents import Document

from ingest.langchain_splitter import ContentSplitter
from ingest.loaders.markdown import find_headings
from ingest.places import find_places, survey
from ingest.splitter import MAX_WIDTH, MIN_WIDTH, split
from kb.records import Heading, Span

FRAGMENTS = ("设备每天检查一次，", "由班长签字。", "The pump must be off. ", "word ", "\n", "\n\n")
ODD = (
    "e\u0301",
    "👩\u200d🔧",
    "\r\n",
    "\u3000",
    "\t",
    "\n\n    ",
    "一",
    "a",
    "。",
    "```\n",
    "| 甲 | 乙 |\n",
    "\U0001f600",
)

texts = st.lists(st.sampled_from(FRAGMENTS + ODD), max_size=600).map("".join)
long_texts = st.builds(
    lambda seed, n: "".join(random.Random(seed).choices(FRAGMENTS + ODD, k=n)),
    st.integers(0, 10**6),
    st.integers(200, 1500),
)


def pieces(text: str, spans: list[Span]) -> list[str]:
    return [text[span.start : span.end] for span in spans]


def width(text: str) -> int:
    """The documented width, one character at a time."""
    total = 0
    before = ""
    for character in text:
        if character.isspace():
            total += not before.isspace()
        elif not (unicodedata.combining(character) or "\u200d" in (before, character)):
            total += 2 if unicodedata.east_asian_width(character) in "WF" else 1
        before = character
    return total


@given(texts | long_texts)
@settings(max_examples=60)
def test_spans_tile_the_text(text: str) -> None:
    spans = split(text, ())

    assert "".join(pieces(text, spans)) == text
    assert [span.start for span in spans[1:]] == [span.end for span in spans[:-1]]


@given(long_texts)
@settings(max_examples=40)
def test_chunks_are_neither_narrow_nor_wide(text: str) -> None:
    widths = [width(piece) for piece in pieces(text, split(text, ()))]

    assert max(widths) <= MAX_WIDTH
    assert len(widths) == 1 or min(widths) >= MIN_WIDTH


@given(texts | long_texts)
@settings(max_examples=60)
def test_no_chunk_is_blank_unless_the_text_is(text: str) -> None:
    spans = split(text, ())

    assert bool(spans) == bool(text)
    assert all(piece.strip() for piece in pieces(text, spans)) or not text.strip()


@given(long_texts)
@settings(max_examples=40)
def test_no_cut_falls_inside_what_is_seen_as_one_character(text: str) -> None:
    for span in split(text, ())[1:]:
        around = text[span.start - 1 : span.start + 1]
        assert not unicodedata.combining(around[1])
        assert "\u200d" not in around
        assert not around[1].isspace()


@given(long_texts)
@settings(max_examples=30)
def test_a_chunk_is_not_split_again(text: str) -> None:
    for piece in pieces(text, split(text, ())):
        assert len(split(piece, ())) == 1


@given(st.integers(0, 10**6), st.sampled_from([700, 1500, 3000, 6000]))
@settings(max_examples=30)
def test_looking_at_blocks_gives_the_same_cuts(seed: int, block_chars: int) -> None:
    source = random.Random(seed)
    text = "".join(source.choices(FRAGMENTS + ODD, k=source.randint(10, 6000)))

    assert split(text, (), block_chars=block_chars) == split(text, ())


@given(long_texts)
@settings(max_examples=15)
def test_cuts_of_narrow_pieces_are_the_local_maxima(text: str) -> None:
    """A slow reference beside the fast path: compare each place with all places near it."""
    places = find_places(text, 0, len(text), survey(text, ()))
    positions, ranks = places.positions.tolist(), places.priorities.tolist()
    maxima = [
        int(places.offsets[i])
        for i, position in enumerate(positions)
        if MIN_WIDTH <= position <= places.total - MIN_WIDTH
        and all(ranks[j] < ranks[i] for j in range(i) if position - positions[j] < MIN_WIDTH)
        and all(
            ranks[j] <= ranks[i]
            for j in range(i + 1, len(ranks))
            if positions[j] - position < MIN_WIDTH
        )
    ]

    cuts = {span.start for span in split(text, ())}

    assert cuts.issuperset(maxima) or places.total <= MAX_WIDTH


def sentence(source: random.Random) -> str:
    count = source.randint(4, 14)
    if source.random() < 0.3:
        return " ".join(source.choices(["valve", "check", "the", "pump", "oil"], k=count)) + ". "
    words = ["设备", "检查", "记录", "温度", "班长", "签字", "滤网", "激光器", "校准", "报告"]
    return "".join(source.choices(words, k=count)) + f"{source.randint(1, 999)}。"


def manual(source: random.Random, n_sentences: int) -> list[str]:
    """Sentences of a Markdown document, some of which are headings or end a paragraph."""
    parts: list[str] = []
    for i in range(n_sentences):
        if source.random() < 0.04:
            parts.append(f"\n\n{'#' * source.randint(1, 3)} 第{i}节 {source.randint(1, 99)}\n\n")
        parts.append(sentence(source) + ("\n\n" if source.random() < 0.2 else ""))
    return parts


def chunks(text: str) -> Counter[tuple[str, str]]:
    spans = split(text, find_headings(text))
    return Counter((span.heading, text[span.start : span.end]) for span in spans)


@given(st.integers(0, 10**6), st.sampled_from(["insert", "delete", "replace"]), st.booleans())
@settings(max_examples=150, derandomize=True)  # rare accidents are allowed: see `split`
def test_an_edit_of_one_sentence_changes_at_most_three_chunks(
    seed: int, edit: str, is_one_line: bool
) -> None:
    source = random.Random(seed)
    parts = manual(source, 250)
    if is_one_line:
        parts = [part.replace("\n", "") for part in parts if "#" not in part]
    at = source.choice([i for i, part in enumerate(parts) if "#" not in part])
    new = sentence(source)
    changed = {
        "insert": [*parts[:at], new, *parts[at:]],
        "delete": [*parts[:at], *parts[at + 1 :]],
        "replace": [*parts[:at], new, *parts[at + 1 :]],
    }[edit]

    added = chunks("".join(changed)) - chunks("".join(parts))

    assert added.total() <= 3


def test_an_edit_in_a_line_without_a_break_is_local_too() -> None:
    source = random.Random(6)
    text = "".join(chr(0x4E00 + source.randrange(3000)) for _ in range(20000))

    added = chunks(text[:9000] + "插入的字" + text[9000:]) - chunks(text)

    assert 1 <= added.total() <= 3


def test_a_text_that_fits_is_one_chunk() -> None:
    text = "短文一段。\n\n" * 60

    assert width(text) <= MAX_WIDTH
    assert split(text, ()) == [Span(0, len(text), "")]


def test_the_heading_path_is_the_one_at_the_first_character_that_is_not_blank() -> None:
    body = "说明文字一句。" * 60 + "\n\n"
    text = f"\n\n# 手册\n\n{body}## 维护\n\n{body}### 滤网\n\n{body}## 校准\n\n{body}"

    spans = split(text, find_headings(text))

    headings = [span.heading for span in spans]
    assert headings[0] == "手册"
    assert "手册 > 维护 > 滤网" in headings
    assert headings[-1] == "手册 > 校准"
    for span in spans[1:]:
        if text[span.start] == "#":
            assert text[span.start :].split("\n")[0].lstrip("# ") == span.heading.split(" > ")[-1]


def test_a_heading_stays_with_its_text() -> None:
    sections = [f"## 第{i}节\n\n{'内容句子若干。' * (20 + i % 37)}\n\n" for i in range(60)]
    text = "".join(sections)

    for piece in pieces(text, split(text, find_headings(text))):
        assert not piece.rstrip().split("\n")[-1].startswith("##")


def test_a_code_block_that_fits_is_not_cut_where_prose_can_be() -> None:
    prose = "\n\n".join(f"第{i}段，说明若干情况。" * 3 for i in range(8))
    code = "```\n" + "\n\n".join(f"value_{i} = compute({i})" for i in range(6)) + "\n```"
    text = f"{prose}\n\n{code}\n\n{prose}\n\n{code}\n\n{prose}"

    for piece in pieces(text, split(text, ())):
        assert piece.count("```") % 2 == 0


def test_a_setting_stays_with_what_is_indented_below_it() -> None:
    source = random.Random(4)

    def entry(i: int) -> str:
        facts = "".join(f"    It is read at start {source.randrange(99)}.\n" for _ in range(6))
        return f".. data:: SETTING_{i}\n\n{facts}\n    Since 2.{i}.\n\n    Default: {i}\n\n"

    text = "".join(map(entry, range(60)))

    spans = pieces(text, split(text, ()))

    assert len(spans) > 20
    assert all(piece.startswith(".. data:: SETTING_") for piece in spans)


def test_cuts_prefer_the_ends_of_sentences() -> None:
    text = "".join(f"第{i}条规定共有若干款，见附表" + "。" for i in range(400))

    ends = [piece[-1] for piece in pieces(text, split(text, ()))]

    assert set(ends) == {"。"}


def test_list_numbers_stay_with_their_items() -> None:
    text = " ".join(f"{i}. Check the valve {i} and write the result down" for i in range(200))

    for piece in pieces(text, split(text, ())):
        assert not piece.rstrip().endswith(".")


@pytest.mark.parametrize("text", ["a" * 350_000, "澜溪" * 175_000, "=-" * 100_000, " " * 100_000])
def test_a_long_line_without_a_break_is_split_in_time(text: str) -> None:
    started = time.process_time()

    spans = split(text, ())

    assert time.process_time() - started < 5
    assert max(map(width, pieces(text, spans))) <= MAX_WIDTH


def test_a_novel_is_split_in_time() -> None:
    source = random.Random(3)
    text = "".join(sentence(source) for _ in range(45_000))
    assert len(text.encode()) > 2_500_000

    started = time.process_time()
    spans = split(text, ())

    assert time.process_time() - started < 6  # 1 s on a quiet core
    assert len(spans) > 1000


def test_the_langchain_splitter_gives_the_same_chunks_with_their_places() -> None:
    text = "# 手册\n\n" + "说明文字一句。" * 400
    heading = {"start": 0, "level": 1, "title": "手册"}
    document = Document(text, metadata={"source": "a.md", "headings": [heading], "pages": []})

    found = ContentSplitter().split_documents([document])

    assert "".join(chunk.page_content for chunk in found) == text
    assert found[1].metadata == {
        "source": "a.md",
        "heading": "手册",
        "start_index": len(found[0].page_content),
    }
    assert ContentSplitter().split_text(text) == pieces(text, split(text, [Heading(0, 1, "手册")]))


@pytest.mark.slow
def test_every_text_of_the_shared_knowledge_bases_is_tiled() -> None:
    folder = Path("../shared/data/kb_zh")
    if not folder.is_dir():
        pytest.skip("the shared data are not here")

    for path in sorted(folder.rglob("*.md")):
        text = path.read_text()
        assert "".join(pieces(text, split(text, find_headings(text)))) == text
