"""What is found, and what became of the rest: filters, candidates, duplicates."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from langchain_core.embeddings import Embeddings
from sqlalchemy import update

from ingest.fake import FakeEmbedder
from kb.embedder import LangChainEmbedder
from kb.errors import InvalidInputError
from kb.records import Filter, Question
from kb.retrieval.duplicates import SeenTexts
from kb.retrieval.index import FaissIndex
from kb.retrieval.retrieve import Retriever
from kb.storage import fulltext as fulltext_file
from kb.storage.documents import find_document
from kb.storage.tables import DocumentVersionRow, SourceRow
from kb.wiring import Services
from tests.building import add_document, make_base, open_services

N_MANY = 80
PUMP = "The pump of hall {} is serviced every {} hours by the crew.\n"


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    """A base where far more chunks answer than a search returns."""
    with open_services(tmp_path / "home") as opened:
        base = make_base(opened.database, "halls")
        texts = [PUMP.format(n, 100 + 7 * n) for n in range(N_MANY)]
        add_document(opened.database, base, "many.txt", texts)
        add_document(opened.database, base, "a/one.PDF", ["Somewhere a pump hums.\n"])
        add_document(opened.database, base, "a/b/two.md", ["The crew has a pump in hall B.\n"])
        add_document(opened.database, base, "aa/three.md", ["Halls have a pump.\n", "七号泵。\n"])
        with opened.database.write() as session:
            session.execute(update(SourceRow).values(label="docs", root="/srv/docs"))
        yield opened


def found(services: Services, wanted: Filter, **changes: object) -> set[str]:
    """Return the documents found by a question that everything in the base fits."""
    question = {"text": "pump hall crew", "kbs": ("halls",), "top_k": 5, "filter": wanted}
    hits = services.retriever.search(Question(**(question | changes))).hits
    return {hit.document.removeprefix("docs/") for hit in hits}


@pytest.mark.parametrize("channel", ["hybrid", "dense", "lexical"])
@pytest.mark.parametrize(
    ("wanted", "documents"),
    [
        (Filter(documents=("a/one.PDF",)), {"a/one.PDF"}),
        (Filter(documents=("docs/a/one.PDF", "a/b/two.md")), {"a/one.PDF", "a/b/two.md"}),
        (Filter(folder="a"), {"a/one.PDF", "a/b/two.md"}),
        (Filter(folder="docs/a/"), {"a/one.PDF", "a/b/two.md"}),
        (Filter(folder="/srv/docs/aa"), {"aa/three.md"}),
        (Filter(types=("pdf",)), {"a/one.PDF"}),
        (Filter(types=(".MD", "pdf")), {"a/one.PDF", "a/b/two.md", "aa/three.md"}),
        (Filter(folder="a", types=("md",)), {"a/b/two.md"}),
        (Filter(documents=("./a/one.PDF",)), {"a/one.PDF"}),
        (Filter(documents=("/srv/docs/a/one.PDF",)), {"a/one.PDF"}),
    ],
)
def test_a_filter_is_exact_and_costs_no_recall(
    services: Services, channel: str, wanted: Filter, documents: set[str]
) -> None:
    """The few chunks that fit rank far below the 80 that do not; post-filtering would miss them."""
    assert found(services, wanted, channel=channel) == documents


def test_a_document_is_named_by_its_id_too(services: Services) -> None:
    with services.database.read() as session:
        [base] = services.retriever.search(Question("pump", ("halls",), 1)).bases
        id_ = find_document(session, base, "a/b/two.md").id

    assert found(services, Filter(documents=(id_,))) == {"a/b/two.md"}


def test_days_are_those_of_the_stored_text_and_both_included(services: Services) -> None:
    with services.database.write() as session:
        [base] = services.retriever.search(Question("pump", ("halls",), 1)).bases
        version_id = find_document(session, base, "a/b/two.md").version_id
        session.execute(
            update(DocumentVersionRow)
            .where(DocumentVersionRow.id == version_id)
            .values(created_at="2024-03-05T23:59:59+00:00")
        )

    old = {"a/b/two.md"}
    assert found(services, Filter(until="2024-03-05")) == old
    assert found(services, Filter(since="2024-03-05", until="20240305")) == old
    assert found(services, Filter(until="2024-03-04")) == set()
    assert found(services, Filter(since="2024-03-06")).isdisjoint(old)


@pytest.mark.parametrize(
    ("wanted", "field"),
    [
        (Filter(documents=("many.txt", "none.txt")), "documents"),
        (Filter(types=("pdf", "pfd")), "types"),
        (Filter(folder="A"), "folder"),
        (Filter(folder="a_"), "folder"),
        (Filter(since="yesterday"), "since"),
        (Filter(until="2024-13-01"), "until"),
        (Filter(since="2024-03-05", until="2024-03-04"), "since"),
        (Filter(documents=("x' OR 1=1 --",)), "documents"),
    ],
)
def test_a_filter_that_cannot_be_meant_is_refused(
    services: Services, wanted: Filter, field: str
) -> None:
    with pytest.raises(InvalidInputError) as caught:
        found(services, wanted)

    assert caught.value.field == field


def test_a_filter_holds_where_terms_outnumber_what_can_be_scored(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fulltext_file, "POSTING_BUDGET", 1)

    assert found(services, Filter(folder="aa"), channel="lexical") <= {"aa/three.md"}


@pytest.mark.parametrize("lists", [0, 8])
def test_vectors_that_are_not_allowed_are_not_found(lists: int) -> None:
    rows = np.eye(32, dtype=np.float32)
    index = FaissIndex(32)
    index.add(list(range(100, 132)), rows)
    index = index.arranged(lists)

    searched = index.search(rows[0], 5, np.array([131, 120, 7], dtype=np.int64))

    assert {id_ for id_, _ in searched} == {120, 131}
    assert index.search(rows[0], 5, np.array([], dtype=np.int64)) == []


def test_candidates_tell_what_became_of_each(services: Services) -> None:
    retrieval = services.retriever.search(Question("pump hall crew", ("halls",), 3))

    shown = [c for c in retrieval.candidates if not c.dropped]
    assert [c.chunk_id for c in shown] == [hit.chunk.id for hit in retrieval.hits]
    assert len(retrieval.candidates) == 50
    assert {c.dropped for c in retrieval.candidates} == {"", "below_top_k"}
    scores = [c.score for c in retrieval.candidates]
    assert scores == sorted(scores, reverse=True)
    for candidate in retrieval.candidates:
        assert candidate.document.startswith("docs/")
        assert (candidate.dense is None) == (candidate.dense_rank is None)
        assert (candidate.lexical is None) == (candidate.lexical_rank is None)


def test_a_page_that_was_stored_twice_is_shown_once(services: Services) -> None:
    [base] = services.retriever.search(Question("pump", ("halls",), 1)).bases
    text = "Filters of the ventilation are washed by the cleaners on Mondays, never on Fridays.\n"
    names = ("v1.txt", "copy of v1.txt", "v1 again.txt")
    for name in names:
        add_document(services.database, base, name, [text])

    top = services.retriever.search(Question("ventilation filters washed", ("halls",), 1)).hits
    retrieval = services.retriever.search(Question("ventilation filters washed", ("halls",), 5))

    dropped = [c for c in retrieval.candidates if c.dropped == "duplicate"]
    assert len(dropped) == 2
    [hit] = [hit for hit in retrieval.hits if "ventilation" in hit.chunk.text]
    assert sorted([hit.document, *(each.document for each in hit.also_in)]) == sorted(names)
    assert top[0].also_in == hit.also_in
    first = hit.also_in[0]
    assert hit.to_dict()["also_in"][0] == {
        "kb": "halls",
        "document_id": first.document_id,
        "document": first.document,
    }
    assert len(retrieval.hits) == 5


RULE = (
    "本规定适用于南厂全体正式员工。员工入职满三年的，每年可以享受带薪年假十二天，须提前两周向部门主管书面申请，"
    "经人事部核准后生效；当年未休完的部分最多结转五天，逾期作废。年假期间工资照发，节假日不计入年假天数。试用期员工、"
    "临时工及外包人员按各自合同的约定执行，不适用本条。"
)
NOTICE = (
    "Visitors of the north plant sign in at the gate, wear a helmet and stay with their host "
    "all the time. In an alarm nothing is left at the assembly point before the count ends."
)


@pytest.mark.parametrize(
    ("one", "other", "is_same"),
    [
        (RULE, RULE.replace("满三年", "满五年"), False),
        (RULE, RULE.replace("南厂", "北厂"), False),
        (RULE, RULE.replace("可以", "不可"), False),
        (NOTICE, NOTICE.replace("nothing", "everything"), False),
        (NOTICE, NOTICE + " Phones stay off.", False),
        (NOTICE, NOTICE.upper().replace(". ", ".\n\n* "), True),
        (RULE, RULE.replace("，", ",\n").replace("十二", " 十二 "), True),
        ("储存温度为-5度。", "储存温度为5度。", False),
        ("The dose is 1.5 ml.", "The dose is 15 ml.", False),
        ("热线 ✓ 邮件 ✗", "热线 ✗ 邮件 ✓", False),
        ("年假为每年十二天，须提前两周申请。", "年假为每年十二天， 须提前两周申请！", True),
        ("The pump is serviced every 400 hours.", "The pump is serviced every 500 hours.", False),
        ("员工食堂午餐时间为十一点半，晚餐不开放。", "仓库每月盘点一次，由主管签字。", False),
        ("", "", True),
        ("a", "b", False),
    ],
)
def test_duplicates_differ_in_layout_only(one: str, other: str, is_same: bool) -> None:
    seen = SeenTexts()

    assert seen.duplicate_of(one) is None
    seen.add(one)
    assert seen.duplicate_of(other) == (0 if is_same else None)


class BrokenEmbeddings(Embeddings):
    """Fails as embedders behind a URL do, or gives a vector too few."""

    def __init__(self, failure: Exception | None) -> None:
        self.failure = failure

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        if self.failure is not None:
            raise self.failure
        return []

    def embed_query(self, text: str) -> list[float]:
        self.embed_documents([text])
        return [1.0]


@pytest.mark.parametrize("failure", [ConnectionError("429"), None])
def test_an_embedder_of_another_library_that_fails_leaves_full_text(
    services: Services, tmp_path: Path, failure: Exception | None
) -> None:
    broken = LangChainEmbedder(BrokenEmbeddings(failure), FakeEmbedder.spec)
    retriever = Retriever(services.database, broken, tmp_path / "index")

    found = retriever.search(Question("pump hall crew", ("halls",), 3))

    assert len(found.hits) == 3
    assert [notice.kind for notice in found.notices] == ["no_dense"]
    assert retriever.similarity(found.bases).cosines("a pump", ["pumps"]) == [None]  # type: ignore[union-attr]
