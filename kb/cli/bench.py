"""`kb bench`: speed on this machine, as JSON or lines. (`llm` is in `kb.cli.bench_llm`.)

Nothing here touches the user's data: each run works in a data folder of its own under
``$KB_HOME/bench`` and removes it afterwards.
"""

import json
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kb.cli.bench_llm import bench_llm
from kb.cli.edge import Edge, json_option, pass_edge, print_json
from kb.cli.machine import print_machine

if TYPE_CHECKING:
    from kb.embedder import Embedder
    from kb.protocols import Vectors
    from kb.records import EmbedderSpec, KnowledgeBase
    from kb.wiring import Services

QUERIES = 200
SEED = 7
CHUNKS_PER_DOCUMENT = 20


@click.group()
def bench() -> None:
    """Measure speed on this machine. Other load on it distorts the figures; compare ratios."""


bench.add_command(bench_llm)


@bench.command("ingest", epilog="Example:  kb bench ingest ./docs --json")
@click.argument("paths", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@json_option
@pass_edge
def bench_ingest(edge: Edge, paths: tuple[Path, ...], as_json: bool) -> None:
    """Ingest PATHS into an empty knowledge base, then embed the same chunks alone.

    `overhead_ratio` is the time of the whole ingest over the time of embedding its chunks,
    sorted by length, in the same process and with the same settings.
    """
    import psutil

    from ingest.sync import SyncOptions, sync_folders

    with _services(edge) as services:
        base = services.create_base("bench")
        services.embedder.embed_array(["load the model before the clock starts"])
        started = time.perf_counter()
        report = sync_folders(services.sync_parts, base, list(paths), SyncOptions())
        services.retriever.view(base).save_if_worthwhile()
        seconds = time.perf_counter() - started
        strings, size_bytes = _embedded_strings(services, base.id)
        started = time.perf_counter()
        for first in range(0, len(strings), 128):
            services.embedder.embed_array(strings[first : first + 128])
        embed_seconds = time.perf_counter() - started
        peak_gb = psutil.Process().memory_info().rss / 2**30
    _print(
        {
            "files": report.added,
            "failed": len(report.failed),
            "bytes": size_bytes,
            "chunks": len(strings),
            "seconds": round(seconds, 2),
            "embed_seconds": round(embed_seconds, 2),
            "overhead_ratio": round(seconds / embed_seconds, 3) if embed_seconds else None,
            "chunks_per_s": round(len(strings) / seconds, 2),
            "mb_per_s": round(size_bytes / 2**20 / seconds, 3),
            "peak_memory_gb": round(max(peak_gb, _peak_gb()), 2),
        },
        as_json,
    )


@bench.command("search", epilog="Example:  kb bench search --chunks 100000 --json")
@click.option("--chunks", default=100_000, show_default=True, type=click.IntRange(100))
@click.option(
    "--questions",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Question set (JSON lines with `question`) to search with; default: built-in sentences.",
)
@click.option(
    "--texts",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Corpus (JSON lines with `text`) whose sentences fill the chunks; default: built-in.",
)
@json_option
@pass_edge
def bench_search(
    edge: Edge, chunks: int, questions: Path | None, texts: Path | None, as_json: bool
) -> None:
    """Search a knowledge base of random unit vectors and real sentences, one warm process.

    Random vectors know every script, so each question searches both channels.

    `p50_ms` and `p95_ms` are of a whole hybrid search with the embedding of the question,
    `ask_p50_ms` and `ask_p95_ms` of a whole answer by the extractive answerer; the parts are
    medians. Embedding and dense run beside lexical, `hydrate_ms` is what a search takes beside
    the slower side. `open_s` opens the index from its snapshot in a new object.
    """
    import psutil

    with _services(edge) as services:
        sentences = _sentences_of(_column(texts, "text")) if texts else list(_sentences())
        asked = _column(questions, "question") if questions else list(_sentences())[::3]
        base_id = _fill(services, chunks, sentences)
        figures = _measure(services, base_id, asked)
        figures["memory_gb"] = round(psutil.Process().memory_info().rss / 2**30, 2)
    _print({"chunks": chunks, **figures}, as_json)


@contextmanager
def _services(edge: Edge) -> "Iterator[Services]":
    """Give services on a new data folder, removed afterwards; the embedder is the real one."""
    from kb.wiring import Services

    parent = edge.settings.home / "bench"
    parent.mkdir(parents=True, exist_ok=True)
    home = Path(tempfile.mkdtemp(dir=parent))
    try:
        settings = edge.settings.model_copy(update={"home": home})
        with Services.open(settings, embedder=edge.services.embedder) as services:
            yield services
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _embedded_strings(services: "Services", kb_id: str) -> tuple[list[str], int]:
    """Return the distinct strings that were embedded, longest first, and the files' bytes."""
    from kb.embedder import embedded_text
    from kb.storage.documents import list_chunks, list_documents

    strings: set[str] = set()
    size_bytes = 0
    with services.database.read() as session:
        offset = 0
        while True:
            documents, total = list_documents(session, kb_id, offset=offset, limit=500)
            for document in documents:
                size_bytes += document.size_bytes
                for chunk in list_chunks(session, document):
                    strings.add(embedded_text(chunk.heading, chunk.text))
            offset += len(documents)
            if offset >= total or not documents:
                break
    return sorted(strings, key=len, reverse=True), size_bytes


def _fill(services: "Services", n_chunks: int, sentences: Sequence[str]) -> str:
    """Store documents of random vectors and recombined sentences; write a snapshot."""
    import random

    from kb.embedder import text_hash
    from kb.records import LoadedDocument
    from kb.storage.bases import find_or_add_source
    from kb.storage.documents import PreparedChunk, PreparedDocument, write_document
    from kb.storage.embeddings import store_embeddings
    from kb.text.terms import index_terms

    base = _random_base(services)
    words = random.Random(SEED)
    vectors = _random_vectors(n_chunks, base.embedder.dimension)
    terms = {sentence: index_terms(sentence) for sentence in sentences}
    with services.database.write() as session:
        source = find_or_add_source(session, base.id, kind="upload", root="", label="")
    for first in range(0, n_chunks, CHUNKS_PER_DOCUMENT):
        text, spans = "", []
        for _ in range(min(CHUNKS_PER_DOCUMENT, n_chunks - first)):
            chosen = words.sample(sentences, min(8, len(sentences)))
            body = "\n".join(chosen) + "\n"
            spans.append((len(text), len(text) + len(body), chosen))
            text += body
        keys = [text_hash(f"{first + i}") for i in range(len(spans))]
        prepared = PreparedDocument(
            path=f"{first}.txt",
            stat_key="",
            loaded=LoadedDocument(text, (), (), None, False, "bench", f"{first:064x}", len(text)),
            chunks=tuple(
                PreparedChunk(start, end, None, "", key, "", " ".join(terms[s] for s in chosen))
                for (start, end, chosen), key in zip(spans, keys, strict=True)
            ),
        )
        with services.database.write() as session:
            part = vectors[first : first + len(keys)]
            store_embeddings(session, base.embedder_id, dict(zip(keys, part, strict=True)))
            write_document(session, base, source, prepared)
    services.retriever.view(base).save()
    return base.id


def _random_base(services: "Services") -> "KnowledgeBase":
    """Create a base whose embedder knows Chinese too, so that dense always has a say."""
    from ingest.splitter import SPLITTER
    from kb.refusal.support import DEFAULT_SUPPORT_THRESHOLD
    from kb.storage.bases import create_base
    from kb.text.terms import FULLTEXT

    spec = services.embedder.spec
    with services.database.write() as session:
        return create_base(
            session,
            "bench",
            embedder=replace(spec, identity="random", scripts=spec.scripts | {"Hani"}),
            splitter=SPLITTER,
            fulltext=FULLTEXT,
            support_threshold=DEFAULT_SUPPORT_THRESHOLD,
        )


def _measure(services: "Services", kb_id: str, questions: Sequence[str]) -> dict[str, Any]:
    from kb.answers.extractive import ExtractiveAnswerer
    from kb.chain import AskChain
    from kb.records import Question
    from kb.retrieval.retrieve import Retriever
    from kb.storage.bases import find_base
    from kb.storage.fulltext import FullText

    asked = (list(questions) * (QUERIES // max(len(questions), 1) + 1))[:QUERIES]
    with services.database.read() as session:
        base = find_base(session, kb_id)
    vectors = _random_vectors(len(asked), base.embedder.dimension, seed=SEED + 1)
    known = dict(zip(asked, vectors, strict=True))
    embedder = _fixed_vectors(base.embedder, known, services.embedder)
    retriever = Retriever(services.database, embedder, services.settings.home / "index")
    chain = AskChain(services.database, retriever, ExtractiveAnswerer())

    open_s = _seconds(lambda: retriever.open(base))
    view = retriever.view(base)
    whole, answered, dense, lexical, embed = [], [], [], [], []
    for text in asked[:20]:  # warm the page cache, the segmenter and the embedder
        chain.invoke(Question(text, (kb_id,), 5))
    for text, vector in zip(asked, vectors, strict=True):
        whole.append(_seconds(lambda t=text: retriever.search(Question(t, (kb_id,), 5))))
        answered.append(_seconds(lambda t=text: chain.invoke(Question(t, (kb_id,), 5))))
        dense.append(_seconds(lambda v=vector: view.search(v, 50)))
        with services.database.read() as session:
            fulltext = FullText(session, kb_id)
            lexical.append(_seconds(lambda t=text, f=fulltext: f.search(t, 50)))
    for text in asked[:20]:
        embed.append(_seconds(lambda t=text: services.embedder.embed_query(t)))
    # The channels run side by side: what is left is beside the slower one.
    per_embed = statistics.median(embed)
    rest = [
        max(w - max(per_embed + d, x), 0) for w, d, x in zip(whole, dense, lexical, strict=True)
    ]
    return {
        "open_s": round(open_s, 3),
        "p50_ms": _ms(statistics.median(whole)),
        "p95_ms": _ms(statistics.quantiles(whole, n=20)[18]),
        "ask_p50_ms": _ms(statistics.median(answered)),
        "ask_p95_ms": _ms(statistics.quantiles(answered, n=20)[18]),
        "embed_ms": _ms(statistics.median(embed)),
        "dense_ms": _ms(statistics.median(dense)),
        "lexical_ms": _ms(statistics.median(lexical)),
        "hydrate_ms": _ms(statistics.median(rest)),
    }


def _random_vectors(n: int, dimension: int, seed: int = SEED) -> "Vectors":
    import numpy as np

    from kb.embedder import unit_rows

    rows = np.random.default_rng(seed).normal(size=(n, dimension)).astype(np.float32)
    return unit_rows(rows)


def _fixed_vectors(
    known: "EmbedderSpec", vectors: "dict[str, Vectors]", real: "Embedder"
) -> "Embedder":
    """Return an embedder that takes the time of `real`, and gives vectors like the stored ones."""
    import numpy as np

    from kb.embedder import Embedder

    class FixedVectors(Embedder):
        spec = known

        def embed_array(self, texts: Sequence[str]) -> "Vectors":
            real.embed_array(texts)
            return np.stack([vectors[text] for text in texts])

    return FixedVectors()


def _column(path: Path, key: str) -> list[str]:
    lines = path.read_text(encoding="utf-8").split("\n")
    return [json.loads(line)[key] for line in lines if line]


def _sentences_of(texts: Sequence[str]) -> list[str]:
    from kb.text.sentences import split_sentences

    spans = ((text, *span) for text in texts for span in split_sentences(text))
    return sorted({text[start:end] for text, start, end in spans if 15 <= end - start <= 300})


def _sentences() -> Iterator[str]:
    """Yield sentences with a vocabulary of realistic breadth: places × things × numbers."""
    things = "泵 阀门 轴承 传感器 控制柜 电机 filter pump bearing sensor gearbox valve"
    places = "一号车间 二号仓库 实验室 食堂 行政楼 plant office laboratory warehouse dock"
    for i, thing in enumerate(things.split()):
        for j, place in enumerate(places.split()):
            n = 17 * i + 31 * j
            yield f"{place}的{thing}每 {n % 90 + 10} 天检查一次，编号 {thing[:1]}{n:04d}。"
            yield f"The {thing} in the {place} was replaced after {n % 70 + 5} hours (job {n})."


def _seconds(step: Any) -> float:
    started = time.perf_counter()
    step()
    return time.perf_counter() - started


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 2)


def _peak_gb() -> float:
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def _print(figures: dict[str, Any], as_json: bool) -> None:
    print_machine()
    if as_json:
        print_json(figures)
        return
    for name, value in figures.items():
        click.echo(f"{name:<18} {value}")
