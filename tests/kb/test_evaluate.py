"""`kb eval`: the figures are what the contract says, and the real path produces them."""

import json
from pathlib import Path

import pytest

from ingest.fake import FakeEmbedder
from kb.cli.edge import Edge
from kb.cli.main import run
from kb.config import Settings
from kb.errors import InvalidInputError
from kb.evaluation.evaluate import (
    Figures,
    Outcome,
    Target,
    figures,
    is_valid,
)
from kb.evaluation.evaluate import run as ask_all
from kb.evaluation.question_sets import SetQuestion, find_sets, load_set, sample
from kb.records import Answer, AnswerSpan, Citation, Hit
from kb.storage.bases import change_base, list_bases
from kb.wiring import Services
from tests.kb.passages import make_hit

CORPUS = [
    {
        "doc_id": "a/1 ?",
        "title": "水泵",
        "text": "水泵每五百小时换一次油。油量为 1.1 升。",
        "lang": "zh",
    },
    {"doc_id": "b", "title": "Kiln", "text": "The kiln cools below 60 degrees.", "lang": "en"},
    {"doc_id": "c", "title": "", "text": "滤芯每六个月更换。\u2028第二行。", "lang": "zh"},
]
QUESTIONS = [
    {"qid": "1", "question": "水泵的油量是多少？", "answers": ["1.1 升"], "gold_doc_ids": ["a/1 ?"],
     "lang": "zh", "answerable": True},
    {"qid": "2", "question": "Below which temperature cools the kiln?", "answers": ["60 degrees"],
     "gold_doc_ids": ["b"], "lang": "en", "answerable": True},
    {"qid": "3", "question": "火星探测器的发射日期？", "answers": [], "gold_doc_ids": [],
     "lang": "zh", "answerable": False, "meta": {"type": "gold_removed"}},
]  # fmt: skip


def write_set(
    folder: Path, corpus: list[dict[str, object]], asked: list[dict[str, object]]
) -> Path:
    folder.mkdir(parents=True)
    for name, rows in (("corpus", corpus), ("questions", asked)):
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(lines, encoding="utf-8", newline="\n")
    return folder


def question(**changes: object) -> SetQuestion:
    values: dict[str, object] = {
        "qid": "1",
        "text": "?",
        "lang": "en",
        "is_answerable": True,
        "gold_doc_ids": frozenset({"g"}),
        "groups": (("the answer",),),
    }
    return SetQuestion(**{**values, **changes})  # type: ignore[arg-type]


def answer(text: str, *, span: str | None = None, refused: bool = False) -> Answer:
    return Answer(
        text=text,
        refused=refused,
        support=0.5,
        answer_span=AnswerSpan(span, 0) if span else None,
        citations=(),
        passages=(),
        model="test",
    )


def outcome(
    asked: SetQuestion, given: Answer, *, ranked: tuple[str, ...] = (), cited: tuple[str, ...] = ()
) -> Outcome:
    return Outcome(asked, ranked, given, cited, 0, 10.0)


def measured(*outcomes: Outcome) -> Figures:
    return figures(outcomes)


def test_recall_counts_gold_documents_over_what_could_be_found() -> None:
    two = question(gold_doc_ids=frozenset({"g", "h"}))
    found = measured(outcome(two, answer("x"), ranked=("g", "a", "b", "c", "d", "h")))
    assert found["recall@1"] == 1.0
    assert found["recall@5"] == 0.5
    assert found["recall@10"] == 1.0
    assert found["mrr@10"] == 1.0


def test_the_reciprocal_rank_ends_at_ten() -> None:
    sixth, eleventh = tuple("abcdeg"), tuple("abcdefhijkg")
    assert measured(outcome(question(), answer("x"), ranked=sixth))["mrr@10"] == round(1 / 6, 4)
    assert measured(outcome(question(), answer("x"), ranked=eleventh))["mrr@10"] == 0


def test_english_answers_compare_without_articles_case_and_punctuation() -> None:
    found = measured(outcome(question(), answer("It is The  Answer!", span="Answer.")))
    assert found["answer_em"] == 1
    assert found["answer_f1"] == 1
    assert found["answer_contains"] == 1


def test_chinese_answers_compare_by_characters() -> None:
    asked = question(lang="zh", groups=(("五百小时",),))
    found = measured(outcome(asked, answer("每 五百 小时[1]。", span="每五百小时")))
    assert found["answer_em"] == 0
    assert found["answer_f1"] == round(2 * 4 / 9, 4)
    assert found["answer_contains"] == 1


def test_a_marker_is_no_part_of_the_answer() -> None:
    asked = question(lang="zh", groups=(("12",),))
    assert measured(outcome(asked, answer("共有1[2]个。")))["answer_contains"] == 0


def test_every_part_of_a_compound_answer_must_be_there() -> None:
    asked = question(groups=(("one", "1"), ("two",)))
    assert measured(outcome(asked, answer("1 and two")))["answer_contains"] == 1
    assert measured(outcome(asked, answer("1 and three")))["answer_contains"] == 0
    assert measured(outcome(asked, answer("1 and two")))["answer_em"] is None


def test_refusals_are_judged_only_where_some_are_right() -> None:
    unanswerable = question(is_answerable=False, gold_doc_ids=frozenset(), groups=())
    refusal = answer("no", refused=True)
    found = measured(
        outcome(unanswerable, refusal),
        outcome(unanswerable, answer("guess")),
        outcome(question(), refusal),
        outcome(question(), answer("the answer"), cited=("g",)),
    )
    assert found["refusal_precision"] == 0.5
    assert found["refusal_recall"] == 0.5
    assert found["false_refusals"] == 0.5
    assert found["citation_gold"] == 1
    only_answerable = measured(outcome(question(), refusal))
    assert only_answerable["refusal_precision"] is None
    assert only_answerable["refusal_recall"] is None
    assert only_answerable["citation_gold"] is None
    assert only_answerable["citation_valid"] is None


def test_no_outcomes_give_no_figures() -> None:
    assert set(measured().values()) == {0, None}


def citation(start: int, end: int, quote: str) -> Citation:
    return Citation("[1]", "kb", "d", "d.md", 1, None, start, end, quote, True)


@pytest.mark.parametrize(
    ("found", "text", "valid"),
    [
        (citation(2, 4, "cd"), "abcdef", True),
        (citation(2, 4, "xx"), "abcdef", False),
        (citation(4, 9, "ef"), "abcdef", False),
        (citation(2, 2, ""), "abcdef", False),
        (citation(2, 4, "cd"), None, False),
    ],
)
def test_a_citation_is_valid_if_the_stored_text_says_so(
    found: Citation, text: str | None, valid: bool
) -> None:
    assert is_valid(found, text) is valid


def test_search_goes_on_until_ten_documents_are_found() -> None:
    # Documents of three chunks each: ten documents need thirty hits.
    hits: list[Hit] = [make_hit("x", rank=i + 1, document=f"d{i // 3}") for i in range(90)]
    asked: list[int] = []

    def search(text: str, top_k: int) -> list[Hit]:
        asked.append(top_k)
        return hits[:top_k]

    target = Target(
        search=search,
        ask=lambda _: answer("x"),
        stored_text=lambda _: None,
        doc_ids={f"d{i}": f"doc {i}" for i in range(30)},
    )
    (only,) = ask_all([question()], target)
    assert only.ranked == tuple(f"doc {i}" for i in range(10))
    assert asked == [10, 30]


def test_samples_are_spread_and_always_the_same() -> None:
    questions = [question(qid=str(i)) for i in range(10)]
    assert [q.qid for q in sample(questions, 5)] == ["0", "2", "4", "6", "8"]
    assert len(sample(questions, 50)) == 10
    assert len(sample(questions, None)) == 10


def test_sets_are_found_in_a_folder_or_are_the_folder(tmp_path: Path) -> None:
    one = write_set(tmp_path / "one", CORPUS, QUESTIONS)
    two = write_set(tmp_path / "two", CORPUS, QUESTIONS)
    assert find_sets(tmp_path) == [one, two]
    assert find_sets(one) == [one]
    (tmp_path / "none").mkdir()
    with pytest.raises(InvalidInputError, match="holds no set"):
        find_sets(tmp_path / "none")


def test_lines_end_at_newlines_only(tmp_path: Path) -> None:
    loaded = load_set(write_set(tmp_path / "one", CORPUS, QUESTIONS))
    assert len(loaded.documents) == 3
    assert "\u2028" in loaded.documents[2].text


def test_free_form_answers_are_not_judged(tmp_path: Path) -> None:
    row = {**QUESTIONS[0], "meta": {"free_form": True}}
    assert load_set(write_set(tmp_path / "one", CORPUS, [row])).questions[0].groups == ()


def test_a_line_of_another_form_is_an_error_that_names_the_set(tmp_path: Path) -> None:
    folder = write_set(tmp_path / "odd", CORPUS, [{"qid": "1"}])
    with pytest.raises(InvalidInputError, match="odd"):
        load_set(folder)


@pytest.fixture
def edge(tmp_path: Path) -> Edge:
    embedder = FakeEmbedder()
    return Edge({}, Services.open(Settings(home=tmp_path / "home"), embedder=embedder))


def test_the_command_measures_sets_and_reuses_their_corpus(
    tmp_path: Path, edge: Edge, capsys: pytest.CaptureFixture[str]
) -> None:
    write_set(tmp_path / "sets" / "one", CORPUS, QUESTIONS)
    write_set(tmp_path / "sets" / "same_corpus", CORPUS, QUESTIONS[:1])
    command = ["eval", str(tmp_path / "sets"), "--json"]
    assert run(command, edge=edge) == 0
    first = json.loads(capsys.readouterr().out)["sets"]
    assert list(first) == ["one", "same_corpus"]
    assert first["one"]["questions"] == 3
    assert first["one"]["recall@1"] == 1
    assert first["one"]["answer_contains"] == 1
    assert first["one"]["refusal_recall"] == 1
    assert first["one"]["false_refusals"] == 0
    assert first["one"]["citation_valid"] == 1
    assert first["one"]["citation_gold"] == 1
    assert first["same_corpus"]["refusal_recall"] is None
    embedder = edge.services.embedder
    assert isinstance(embedder, FakeEmbedder)
    corpora = list((tmp_path / "home" / "eval" / "corpora").iterdir())
    assert len(corpora) == 1
    n_texts = embedder.n_texts
    assert run([*command, "--sets", "one", "--limit", "1"], edge=edge) == 0
    again = json.loads(capsys.readouterr().out)["sets"]
    assert list(again) == ["one"]
    assert again["one"]["questions"] == 1
    assert embedder.n_texts - n_texts <= 2  # the question, not the corpus


def test_a_base_of_another_version_is_replaced_without_embedding_again(
    tmp_path: Path, edge: Edge
) -> None:
    folder = write_set(tmp_path / "one", CORPUS, QUESTIONS[:1])
    assert run(["eval", str(folder)], edge=edge) == 0
    embedder = edge.services.embedder
    assert isinstance(embedder, FakeEmbedder)
    n_texts = embedder.n_texts
    settings = Settings(home=tmp_path / "home" / "eval")
    with Services.open(settings, embedder=embedder) as services:
        with services.database.write() as session:
            (base,) = list_bases(session)
            change_base(session, base, name=base.name[:-8] + "0" * 8)
        assert run(["eval", str(folder)], edge=edge) == 0
        with services.database.read() as session:
            assert [other.name for other in list_bases(session)] == [base.name]
    assert embedder.n_texts - n_texts <= 2  # the question, searched and asked


def test_the_table_has_a_line_for_each_set(
    tmp_path: Path, edge: Edge, capsys: pytest.CaptureFixture[str]
) -> None:
    write_set(tmp_path / "sets" / "one", CORPUS, QUESTIONS)
    assert run(["eval", str(tmp_path / "sets")], edge=edge) == 0
    header, line = capsys.readouterr().out.splitlines()
    assert header.split()[0] == "set"
    assert line.split()[0] == "one"


def test_an_unknown_set_is_named(
    tmp_path: Path, edge: Edge, capsys: pytest.CaptureFixture[str]
) -> None:
    write_set(tmp_path / "sets" / "one", CORPUS, QUESTIONS)
    assert run(["eval", str(tmp_path / "sets"), "--sets", "two"], edge=edge) == 1
    assert "no set named two; there are one" in capsys.readouterr().err


def test_questions_about_a_folder_of_files_need_no_corpus(
    tmp_path: Path, edge: Edge, capsys: pytest.CaptureFixture[str]
) -> None:
    docs = tmp_path / "docs"
    (docs / "制度").mkdir(parents=True)
    (docs / "制度" / "年假.md").write_text("# 年假\n\n员工每年有年假十二天。", encoding="utf-8")
    (docs / "pump.txt").write_text("The pump is serviced every 400 hours.", encoding="utf-8")
    rows = [
        {
            "qid": "1",
            "question": "员工每年有年假几天？",
            "answers": ["十二天"],
            "gold_paths": ["docs/制度/年假.md", "docs/elsewhere.md"],
            "any_gold": True,
            "lang": "zh",
            "answerable": True,
        },
        {
            "qid": "2",
            "question": "How often is the pump serviced?",
            "answers": ["every 400 hours"],
            "gold_paths": ["docs/pump.txt"],
            "lang": "en",
            "answerable": True,
        },
    ]
    questions = tmp_path / "about_docs.jsonl"
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    questions.write_text("\n".join(lines), encoding="utf-8")

    assert run(["eval", str(questions), "--documents", str(docs), "--json"], edge=edge) == 0

    figures = json.loads(capsys.readouterr().out)["sets"]["about_docs"]
    assert figures["recall@1"] == 1  # one of the two files of the first question is enough
    assert figures["answer_contains"] == 1
    assert figures["citation_gold"] == 1

    assert run(["eval", str(questions), "--documents", str(docs / "制度")], edge=edge) == 1
    assert "none of the files that the questions name" in capsys.readouterr().err


def test_a_set_without_a_corpus_says_what_it_needs(
    tmp_path: Path, edge: Edge, capsys: pytest.CaptureFixture[str]
) -> None:
    questions = tmp_path / "questions.jsonl"
    questions.write_text(json.dumps(QUESTIONS[0]), encoding="utf-8")

    assert run(["eval", str(questions)], edge=edge) != 0

    assert "--documents FOLDER" in capsys.readouterr().err


def test_a_stored_run_is_compared_and_reported(
    tmp_path: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_set(tmp_path / "sets" / "小集", CORPUS, QUESTIONS)
    with Services.open(Settings(home=home), embedder=FakeEmbedder()) as services:
        edge = Edge({}, services)
        edge.close = lambda: None  # type: ignore[method-assign]
        assert run(["eval", str(folder), "--json"], edge) == 0
        stored = tmp_path / "run.json"
        stored.write_text(capsys.readouterr().out, encoding="utf-8")
        report = tmp_path / "report.html"

        again = run(["eval", str(folder), "--compare", str(stored), "--html", str(report)], edge)
        same = capsys.readouterr().out
        better = json.loads(stored.read_text("utf-8"))
        better["sets"]["小集"]["citation_valid"] = 2.0
        stored.write_text(json.dumps(better), encoding="utf-8")
        worse = run(["eval", str(folder), "--compare", str(stored)], edge)

    first = better["sets"]["小集"]
    assert first["details"]["qid"] == ["1", "2", "3"]
    assert first["auroc"] == 1.0
    assert len(first["refusal_curve"]) == 51
    assert again == 0
    assert "worse" not in same
    assert "小集" in report.read_text("utf-8")
    assert worse == 1
    assert "worse than the stored run beyond noise: 小集 citation_valid" in capsys.readouterr().err
