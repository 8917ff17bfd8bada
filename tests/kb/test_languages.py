"""Questions and answers in another language than the documents, with an embedder of both."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from ingest.fake import FakeEmbedder
from ingest.splitter import SPLITTER
from kb.answers.chat import ChatAnswerer
from kb.chain import AskChain
from kb.config import Settings
from kb.protocols import Vectors
from kb.records import Answer, Question
from kb.refusal.support import DEFAULT_SUPPORT_THRESHOLD
from kb.retrieval.similarity import SentenceSimilarity
from kb.storage.bases import create_base, find_or_add_source
from kb.storage.documents import write_document
from kb.storage.embeddings import store_embeddings
from kb.storage.trace_reads import read_trace
from kb.text.terms import FULLTEXT
from kb.traces.replay import replay
from kb.wiring import Services
from llm.fake import FakeChatModel
from tests.building import prepared

MEANINGS = {
    "冷却泵": "cooling pump", "水泵": "pump", "保养": "serviced", "小时": "hours", "每": "every",
    "泄压阀": "relief valve", "打开": "opens", "巴": "bar", "时": "at", "食堂": "canteen",
    "午餐": "lunch", "病假": "sick leave", "年假": "annual leave", "天": "days", "工资": "wages",
    "齿轮箱": "gearbox", "订购": "ordered",
}  # fmt: skip
TEXTS = {
    "pump.txt": "The cooling pump is serviced every 400 hours.",
    "valve.txt": "The relief valve opens at 6 bar.",
    "canteen.txt": "The canteen serves lunch from noon.",
    "order.txt": "The gearbox LX-PO-2023 was ordered.",
    "sick.txt": "Sick leave needs a certificate from the first day.",
    "wages.txt": "Wages are paid monthly by transfer.",
    "drill.txt": "A fire drill takes place in spring.",
    "garden.txt": "Roses grow behind the gate.",
    "paint.txt": "Walls were painted white.",
}


class BilingualEmbedder(FakeEmbedder):
    """Gives Chinese words the vectors of their English meaning."""

    spec = replace(FakeEmbedder.spec, name="both", identity="both/1", dimension=256)

    def __init__(self) -> None:
        super().__init__()

    def embed_array(self, texts: Sequence[str]) -> Vectors:
        words = "|".join(sorted(MEANINGS, key=len, reverse=True))
        found = [re.sub(words, lambda m: f" {MEANINGS[m.group()]} ", text) for text in texts]
        # What has no meaning here is left out, as a real embedder cares little for it.
        return super().embed_array([re.sub("[\u4e00-\u9fff]+", " ", text) for text in found])


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    embedder = BilingualEmbedder()
    with Services.open(Settings(home=tmp_path / "home"), embedder=embedder) as opened:
        with opened.database.write() as session:
            base = create_base(
                session,
                "manual",
                embedder=embedder.spec,
                splitter=SPLITTER,
                fulltext=FULLTEXT,
                support_threshold=DEFAULT_SUPPORT_THRESHOLD,
            )
            source = find_or_add_source(session, base.id, kind="folder", root="", label="")
            for path, text in TEXTS.items():
                document = prepared(path, [text])
                [vector] = embedder.embed_array([text])
                store_embeddings(session, base.embedder_id, {document.chunks[0].text_hash: vector})
                write_document(session, base, source, document)
        yield opened


def ask(services: Services, text: str, chain: AskChain | None = None) -> Answer:
    return (chain or services.chain).invoke(Question(text, ("manual",), 3))


def test_a_chinese_question_is_answered_from_an_english_text(services: Services) -> None:
    answer = ask(services, "冷却泵多少小时保养？")

    assert not answer.refused
    assert [c.document for c in answer.citations] == ["pump.txt"]
    assert answer.citations[0].quote == TEXTS["pump.txt"]


@pytest.mark.parametrize(
    "question",
    [
        "董事长叫什么名字？",
        "冷却泵BX500多少小时保养？",
        "冷却泵900小时保养吗？",
        "泄压阀6.5巴时打开吗？",
        "齿轮箱LX-PO-2024订购了吗？",
    ],
    ids=["nothing is like it", "a code", "a number", "a decimal", "a code half of which is there"],
)
def test_what_the_text_does_not_hold_is_refused_across_languages(
    services: Services, question: str
) -> None:
    assert ask(services, question).refused


def test_an_answer_in_another_language_is_tied_to_its_passage(services: Services) -> None:
    model = FakeChatModel(replies=("冷却泵每400小时保养一次。泄压阀在9巴时打开。",))
    answerer = ChatAnswerer(model, name="fake", takes_seed=True)
    chain = AskChain(services.database, services.retriever, answerer)

    answer = ask(services, "冷却泵多少小时保养？泄压阀什么时候打开？", chain)

    assert [(c.document, c.supported) for c in answer.citations] == [
        ("pump.txt", True),
        ("valve.txt", False),  # nine bars are said nowhere
    ]
    with services.database.read() as session:
        trace = read_trace(session, answer.trace_id)
    model.replies = ("冷却泵每400小时保养一次。泄压阀在9巴时打开。",)
    assert replay(chain, trace).is_same


def test_an_embedder_that_knows_one_language_compares_no_other() -> None:
    embedder = BilingualEmbedder()
    embedder.spec = replace(embedder.spec, scripts=frozenset({"Latn"}))
    similarity = SentenceSimilarity(embedder)

    assert similarity.cosines("冷却泵", ["The cooling pump", "The valve"]) == [None, None]
    same, strange = similarity.cosines("The cooling pump", ["A cooling pump", "冷却泵"])
    assert same is not None
    assert same > 0.5
    assert strange is None
