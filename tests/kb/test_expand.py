"""Passages that grow to their neighbours stay spans of their document."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from kb.answers.chat import ChatAnswerer
from kb.answers.citations import cite
from kb.chain import AskChain
from kb.records import Draft, Passage, Question, Usage
from kb.storage.documents import version_text
from kb.storage.trace_reads import read_trace
from kb.wiring import Services
from llm.fake import FakeChatModel
from tests.building import add_document, make_base, open_services

TEXTS = [f"Step {n}: {word} the {thing}.\n" for n, (word, thing) in enumerate(
    [("open", "valve"), ("drain", "oil"), ("change", "filter"), ("close", "hatch"), ("log", "job")]
)]  # fmt: skip


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    with open_services(tmp_path / "home") as opened:
        add_document(opened.database, make_base(opened.database, "manual"), "steps.txt", TEXTS)
        yield opened


def passages(services: Services, text: str, top_k: int) -> tuple[Passage, ...]:
    asked = Question(text, ("manual",), top_k, channel="lexical")
    return services.retriever.search(asked).passages


def test_a_passage_grows_to_its_neighbours_and_stays_a_span(services: Services) -> None:
    found = passages(services, "filter", 1)

    [wide] = services.retriever.widened(found, room_chars=1000)

    chunk = wide.hit.chunk
    assert chunk.text == "".join(TEXTS[1:4])
    with services.database.read() as session:
        assert version_text(session, chunk.version_id)[chunk.start : chunk.end] == chunk.text
    assert (wide.number, wide.hit.rank, wide.hit.score) == (1, 1, found[0].hit.score)


def test_a_sentence_from_a_neighbour_is_cited_where_it_stands(services: Services) -> None:
    wide = services.retriever.widened(passages(services, "filter", 1), room_chars=1000)

    _, [citation], _ = cite(Draft("Drain the oil [1].", None, (), Usage()), wide)

    with services.database.read() as session:
        text = version_text(session, citation.version_id)
    assert "drain the oil" in citation.quote
    assert text[citation.start : citation.end] == citation.quote


def test_passages_never_overlap_and_keep_their_order(services: Services) -> None:
    found = passages(services, "filter hatch", 2)

    wide = services.retriever.widened(found, room_chars=1000)

    assert [p.hit.chunk.id for p in wide] == [p.hit.chunk.id for p in found]
    spans = sorted((p.hit.chunk.start, p.hit.chunk.end) for p in wide)
    assert spans[0][1] <= spans[1][0]
    assert sum(end - start for start, end in spans) == len("".join(TEXTS[1:5]))


@pytest.mark.parametrize("room_chars", [0, len(TEXTS[3]) - 1])
def test_without_room_nothing_grows(services: Services, room_chars: int) -> None:
    found = passages(services, "filter", 1)

    wide = services.retriever.widened(found, room_chars=room_chars)

    assert sum(len(p.hit.chunk.text) for p in wide) <= len(found[0].hit.chunk.text) + room_chars


def test_a_passage_that_has_changed_meanwhile_stays_as_it_is(services: Services) -> None:
    [passage] = passages(services, "filter", 1)
    moved = replace(passage.hit.chunk, start=passage.hit.chunk.start + 1)
    old = replace(passage, hit=replace(passage.hit, chunk=moved))

    assert services.retriever.widened([old], room_chars=1000) == [old]


def test_another_section_is_no_neighbour(services: Services) -> None:
    from sqlalchemy import update

    from kb.storage.tables import ChunkRow

    with services.database.write() as session:
        session.execute(update(ChunkRow).where(ChunkRow.position == 3).values(heading="Other"))

    [wide] = services.retriever.widened(passages(services, "filter", 1), room_chars=1000)

    assert wide.hit.chunk.text == "".join(TEXTS[1:3])


def test_a_chat_model_reads_wide_passages_and_its_answer_is_proven_by_them(
    services: Services,
) -> None:
    model = FakeChatModel(replies=["Drain the oil [1]."])
    chain = AskChain(services.database, services.retriever, ChatAnswerer(model), widen_chars=1000)

    answer = chain.invoke(Question("filter", ("manual",), 1, channel="lexical"))

    assert [citation.quote for citation in answer.citations] == ["Step 1: drain the oil."]
    with services.database.read() as session:
        trace = read_trace(session, answer.trace_id)
    assert trace.prompt is not None
    assert TEXTS[1].strip() in trace.prompt.messages[0][1]
