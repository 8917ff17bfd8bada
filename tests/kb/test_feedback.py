"""Thumbs: stored with the answer, exported as a set that `kb eval` runs, gone with the text."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import select

from kb.errors import InvalidInputError, TraceNotFoundError
from kb.evaluation.feedback_set import export_feedback
from kb.evaluation.question_sets import load_set
from kb.records import Answer, KnowledgeBase, Question, Turn
from kb.storage.documents import list_documents, remove_documents
from kb.storage.feedback import Rating, forget_rating, rate_answer
from kb.storage.tables import FeedbackRow
from kb.upkeep.erase import erase
from kb.wiring import Services
from tests.building import add_document, document_ids, make_base, open_services
from tests.kb.test_cli import Shell

SECRET = "蓝鲸计划的预算是七百三十一万元，负责人欧阳靖远。"
DOCUMENTS = {
    "a.txt": "员工每年享有 12 天带薪年假，入职满十年后增加到 18 天。",
    "b.txt": "The cooling pump is serviced every 400 hours by the night shift.",
    "secret.txt": SECRET,
}


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    with open_services(tmp_path / "home") as opened:
        yield opened


@pytest.fixture
def base(services: Services) -> KnowledgeBase:
    base = make_base(services.database)
    for path, text in DOCUMENTS.items():
        add_document(services.database, base, path, [text])
    return base


def asked(
    services: Services,
    text: str,
    rating: Rating,
    comment: str = "",
    *,
    day: str = "2024-01-01",
    history: tuple[Turn, ...] = (),
) -> Answer:
    answer = services.chain.invoke(Question(text, ("test",), 3, history=history))
    with services.database.write() as session:
        rate_answer(session, answer.trace_id, rating, comment, created_at=day)
    return answer


def stored(services: Services) -> list[tuple[str, str, str]]:
    with services.database.read() as session:
        rows = select(FeedbackRow.trace_id, FeedbackRow.rating, FeedbackRow.comment)
        return [tuple(row) for row in session.execute(rows)]


def test_a_rating_replaces_the_one_before_and_can_be_taken_back(
    services: Services, base: KnowledgeBase
) -> None:
    answer = asked(services, "员工每年有几天年假？", "up")
    with services.database.write() as session:
        rate_answer(session, answer.trace_id, "down", "少了一半", created_at="2024-01-02")

    assert stored(services) == [(answer.trace_id, "down", "少了一半")]

    with services.database.write() as session:
        forget_rating(session, answer.trace_id)

    assert stored(services) == []


def test_only_a_stored_answer_can_be_rated(services: Services, base: KnowledgeBase) -> None:
    answer = asked(services, "蓝鲸计划的预算是多少？", "up")
    with services.database.write() as session:
        remove_documents(session, base.id, document_ids(session, base))

    with services.database.write() as session, pytest.raises(TraceNotFoundError):
        rate_answer(session, "0" * 32, "up", "", created_at="")
    with services.database.write() as session, pytest.raises(InvalidInputError, match="removed"):
        rate_answer(session, answer.trace_id, "up", "", created_at="")


def test_feedback_goes_with_the_document_its_answer_was_made_from(
    services: Services, base: KnowledgeBase
) -> None:
    asked(services, "蓝鲸计划的预算是多少？", "up", comment=f"对：{SECRET}")
    with services.database.read() as session:
        secret = next(
            d for d in list_documents(session, base.id, offset=0, limit=9)[0] if "secret" in d.path
        )

    with services.database.write() as session:
        remove_documents(session, base.id, [secret.id])

    assert stored(services) == []


def test_erasing_finds_the_text_in_a_comment_on_another_answer(
    services: Services, base: KnowledgeBase
) -> None:
    other = make_base(services.database, "other")
    add_document(services.database, other, "o.txt", [DOCUMENTS["b.txt"]])
    answer = services.chain.invoke(Question("How often is the pump serviced?", ("other",), 3))
    with services.database.write() as session:
        rate_answer(session, answer.trace_id, "up", SECRET, created_at="")
    with services.database.read() as session:
        documents = list_documents(session, base.id, offset=0, limit=9)[0]

    receipt = erase(
        services.database,
        services.retriever,
        services.blobs,
        [d for d in documents if d.path == "secret.txt"],
    )

    assert stored(services) == []
    assert receipt.found == ()


def test_an_export_is_a_set_that_eval_runs(
    services: Services,
    base: KnowledgeBase,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    right = asked(services, "员工每年有几天年假？", "up")
    refused = asked(services, "火星探测器什么时候发射？", "up")
    wrong = asked(services, "How often is the cooling pump serviced?", "down", "not the shift")
    assert (right.refused, refused.refused, wrong.refused) == (False, True, False)
    kb = Shell(services, capsys)
    folder = tmp_path / "rated"

    written = kb.json("feedback", "export", str(folder), "--kb", "test")

    assert (written["documents"], written["questions"], written["unjudged"]) == (3, 2, 1)
    exported = load_set(folder)
    gold = {q.qid: (q.is_answerable, set(q.gold_doc_ids)) for q in exported.questions}
    cited = {citation.document_id for citation in right.citations}
    assert gold == {right.trace_id: (True, cited), refused.trace_id: (False, set())}
    assert sorted(d.text for d in exported.documents) == sorted(DOCUMENTS.values())
    lines = (folder / "unjudged.jsonl").read_text("utf-8").splitlines()
    unjudged = [json.loads(line) for line in lines]
    assert [(row["qid"], row["comment"]) for row in unjudged] == [(wrong.trace_id, "not the shift")]
    figures = kb.json("eval", str(folder))["sets"]["rated"]
    assert (figures["questions"], figures["recall@5"], figures["refusal_recall"]) == (2, 1.0, 1.0)


def test_an_export_without_a_thumb_up_or_over_files_says_so(
    services: Services, base: KnowledgeBase, tmp_path: Path
) -> None:
    with pytest.raises(InvalidInputError, match="no answer of 'test' has a thumb up"):
        export_feedback(services.database, base, tmp_path / "new")

    asked(services, "员工每年有几天年假？", "up")
    (tmp_path / "mine").write_text("precious")
    with pytest.raises(InvalidInputError, match="name a new folder"):
        export_feedback(services.database, base, tmp_path)

    assert sorted(p.name for p in tmp_path.iterdir()) == ["home", "mine"]


def test_the_last_rating_of_a_question_counts(
    services: Services, base: KnowledgeBase, tmp_path: Path
) -> None:
    asked(services, "How often is the cooling pump serviced?", "up", day="2024-01-01")
    asked(services, "员工每年有几天年假？", "down", day="2024-01-03")
    last = asked(services, "员工每年有几天年假？", "up", day="2024-01-02")
    asked(services, "How often is the cooling pump serviced?", "down", day="2024-01-02")
    with services.database.write() as session:
        rate_answer(session, last.trace_id, "up", "", created_at="2024-01-04")

    written = export_feedback(services.database, base, tmp_path / "rated")

    assert (written.questions, written.unjudged) == (1, 1)
    assert [q.qid for q in load_set(tmp_path / "rated").questions] == [last.trace_id]


def test_a_follow_up_is_exported_in_words_that_need_no_history(
    services: Services, base: KnowledgeBase, tmp_path: Path
) -> None:
    first = asked(services, "How often is the cooling pump serviced?", "up")
    history = (Turn("How often is the cooling pump serviced?", first.text, first.trace_id),)
    after = asked(services, "Who services it?", "up", history=history)

    export_feedback(services.database, base, tmp_path / "rated")

    words = {q.qid: q.text for q in load_set(tmp_path / "rated").questions}
    assert words[after.trace_id] == after.rewritten
    assert "cooling pump" in words[after.trace_id]
