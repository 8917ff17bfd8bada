"""One question's journey: events in order, refusals without a model, traces, failures."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from kb.chain import AskChain
from kb.errors import AnswererError, InvalidInputError, KnowledgeBaseNotFoundError
from kb.records import (
    AnswerEvent,
    Draft,
    Drafted,
    Failed,
    Finished,
    Passage,
    Question,
    Retrieved,
    Token,
    Usage,
)
from kb.retrieval.langchain_retriever import HybridRetriever
from kb.storage.documents import version_text
from kb.storage.tables import TraceRow
from kb.wiring import Services
from tests.building import add_document, make_base, open_services

FACTS = [
    "员工每年享有 12 天带薪年假，入职满十年后增加到 18 天。\n",
    "The cooling pump is serviced every 400 hours by the night shift.\n",
    "食堂午餐时间是 11:30 到 13:00，晚餐不对访客开放。\n",
]


class Recorder:
    """An answerer that counts its calls and may fail halfway."""

    model = "recorder"

    def __init__(self, fails: bool = False) -> None:
        self.n_calls = 0
        self._fails = fails

    def answer(self, question: Question, passages: Sequence[Passage]) -> Iterator[AnswerEvent]:
        self.n_calls += 1
        yield Token("half ")
        if self._fails:
            raise AnswererError("the chat model went away; start it again")
        yield Drafted(Draft("half done", None, (), Usage(10, 0, 2)))


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    with open_services(tmp_path / "home") as opened:
        base = make_base(opened.database, "facts")
        for n, fact in enumerate(FACTS):
            add_document(opened.database, base, f"{n}.txt", [fact])
        yield opened


def _ask(text: str, **changes: object) -> Question:
    return Question(**({"text": text, "kbs": ("facts",), "top_k": 3} | changes))


def test_events_come_in_order_and_the_last_holds_the_whole_answer(services: Services) -> None:
    events = list(services.chain.events(_ask("员工每年有几天年假?")))

    kinds = [type(event) for event in events]
    assert kinds[0] is Retrieved
    assert kinds[-1] is Finished
    assert set(kinds[1:-1]) == {Token}
    answer = events[-1].answer
    assert not answer.refused
    assert "12 天" in answer.text


def test_every_citation_is_a_verbatim_span_of_its_document(services: Services) -> None:
    answer = services.chain.invoke(_ask("How often is the cooling pump serviced?"))

    assert answer.citations
    with services.database.read() as session:
        for citation in answer.citations:
            text = version_text(session, citation.version_id)
            assert text[citation.start : citation.end] == citation.quote


def test_a_refusal_calls_no_model_and_shows_the_nearest_passages(services: Services) -> None:
    recorder = Recorder()
    chain = AskChain(services.database, services.retriever, recorder)

    answer = chain.invoke(_ask("火星上的总统叫什么名字?"))

    assert answer.refused
    assert recorder.n_calls == 0
    assert answer.citations == ()
    assert answer.text.startswith("知识库里没有")


def test_the_threshold_of_the_base_decides(services: Services) -> None:
    from kb.storage.bases import change_base, find_base

    with services.database.write() as session:
        change_base(session, find_base(session, "facts"), support_threshold=1.0)

    assert services.chain.invoke(_ask("the pump and some other unrelated thing")).refused


def test_a_failure_before_the_first_event_is_raised_and_a_later_one_is_an_event(
    services: Services,
) -> None:
    chain = AskChain(services.database, services.retriever, Recorder(fails=True))

    with pytest.raises(KnowledgeBaseNotFoundError, match="facts"):
        chain.events(_ask("x", kbs=("nowhere",)))
    events = list(chain.events(_ask("How often is the cooling pump serviced?")))
    assert isinstance(events[-1], Failed)
    assert events[-1].type == "AnswererError"


def test_invoke_raises_what_events_report(services: Services) -> None:
    chain = AskChain(services.database, services.retriever, Recorder(fails=True))

    with pytest.raises(AnswererError, match="start it again"):
        chain.invoke(_ask("How often is the cooling pump serviced?"))


def test_each_answer_leaves_a_trace(services: Services) -> None:
    answer = services.chain.invoke(_ask("员工每年有几天年假?"))

    with services.database.read() as session:
        trace = session.get_one(TraceRow, answer.trace_id)
        assert trace.answer == answer.text
        assert trace.question == "员工每年有几天年假?"


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"text": "  \n"}, "question"),
        ({"text": "很" * 100_000}, "question"),
        ({"top_k": 0}, "top_k"),
        ({"top_k": 10**9}, "top_k"),
        ({"kbs": ()}, "kbs"),
    ],
)
def test_bad_questions_name_the_field(
    services: Services, changes: dict[str, object], field: str
) -> None:
    question = _ask("x") if "text" not in changes else _ask(str(changes["text"]))
    from dataclasses import replace

    with pytest.raises(InvalidInputError) as caught:
        services.chain.search(replace(question, **changes))
    assert caught.value.field == field


@pytest.mark.parametrize(
    "text", ['"', "a AND OR NOT (", "* ^ {x}", "-- '; DROP TABLE chunk;", "NEAR(a b)", "，。！"]
)
def test_operators_in_a_question_are_plain_text(services: Services, text: str) -> None:
    hits = services.chain.search(_ask(text))

    assert len(hits) <= 3


def test_several_bases_are_searched_together(services: Services) -> None:
    other = make_base(services.database, "other")
    add_document(services.database, other, "x.txt", ["年假需要提前两周申请。"])

    hits = services.chain.search(_ask("年假 申请", kbs=("facts", "other", "facts")))

    assert {hit.kb for hit in hits} == {"facts", "other"}
    assert [hit.rank for hit in hits] == list(range(1, len(hits) + 1))
    assert all(0 <= hit.score <= 1 for hit in hits)


def test_the_langchain_retriever_gives_documents_with_spans(services: Services) -> None:
    retriever = HybridRetriever(retriever=services.retriever, kbs=("facts",), top_k=2)

    documents = retriever.invoke("cooling pump hours")

    assert "cooling pump" in documents[0].page_content
    assert documents[0].metadata["document"] == "1.txt"
    assert documents[0].metadata["start"] == 0


def test_a_hit_whose_chunk_is_gone_is_dropped(services: Services) -> None:
    from kb.storage.bases import find_base
    from kb.storage.documents import find_document, remove_documents

    services.chain.search(_ask("cooling pump"))
    with services.database.write() as session:
        base = find_base(session, "facts")
        remove_documents(session, base.id, [find_document(session, base, "1.txt").id])

    assert all(hit.document != "1.txt" for hit in services.chain.search(_ask("cooling pump")))
