"""A knowledge base of a million chunks on this machine: does it open, follow changes and search?

    python -m benchmarks.million --texts CORPUS.jsonl... --questions QUESTIONS.jsonl

The base is made of real sentences, recombined; its vectors are real embeddings of such sentences,
each mixed with another one's and with noise (`MIX`), so that they cluster as text does. Rows are
written by the functions that an ingest uses, many documents to a transaction. With `--home` the
base is kept and found again, so that a change of the code is measured without filling anew.

Prints JSON; `recall_at_10` is against exact search over all stored vectors.
"""

import argparse
import json
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from sqlalchemy import func, insert, select
from sqlalchemy.orm import Session

from ingest.embedder import MiniLMEmbedder
from ingest.splitter import SPLITTER
from kb.embedder import Embedder, embedded_text, text_hash, unit_rows
from kb.protocols import Vectors
from kb.records import KnowledgeBase, LoadedDocument, Question, Source
from kb.refusal.support import DEFAULT_SUPPORT_THRESHOLD
from kb.retrieval.fusion import knows_scripts
from kb.storage.bases import (
    count_base,
    create_base,
    find_base,
    find_or_add_source,
    list_bases,
    new_id,
    now,
)
from kb.storage.changes import append_changes, log_state
from kb.storage.database import Database
from kb.storage.documents import (
    PreparedChunk,
    PreparedDocument,
    remove_documents,
    write_document,
)
from kb.storage.embeddings import find_embeddings, from_bytes, store_embeddings
from kb.storage.fulltext import FullText
from kb.storage.tables import (
    ChunkRow,
    DocumentRow,
    DocumentVersionRow,
    EmbeddingRow,
    SnapshotRow,
)
from kb.text.sentences import split_sentences
from kb.text.terms import FULLTEXT, index_terms

SEED = 7
NAME = "million"
CHUNKS_PER_DOCUMENT = 20
# Some 450 characters of English, 150 of Chinese.
SENTENCES_PER_CHUNK = 4
DOCUMENTS_PER_WRITE = 500
# A chunk's vector: the sentence's own, another sentence's, noise. Its cosine with the first is
# about 0.8; noise in every direction makes neighbours harder to tell apart than real ones are.
MIX = (0.7, 0.4, 0.3)
# Real sentences that are embedded for it.
EMBEDDED_SENTENCES = 20_000
QUERIES = 200


@dataclass(frozen=True, slots=True)
class Material:
    """What chunks are made of."""

    sentences: Sequence[str]
    terms: Sequence[str]  # of the sentences, as full text stores them
    vectors: Vectors  # real embeddings, unit rows


class FixedQuestions(Embedder):
    """Looks questions up, so that searches are timed without a model."""

    def __init__(self, known: dict[str, Vectors]) -> None:
        # It claims Chinese too, so that both channels have a say in every question.
        spec = MiniLMEmbedder("fp32").spec
        self.spec = replace(spec, identity="million", scripts=spec.scripts | {"Hani"})
        self._known = known

    def embed_array(self, texts: Sequence[str]) -> Vectors:
        return np.stack([self._known[text] for text in texts])


# Filling


def fill(home: Path, n_chunks: int, texts: Sequence[Path], vectors: Path | None) -> None:
    """Make the base and its first snapshot, or leave what is there."""
    database = Database.open(home)
    with database.read() as session:
        if any(base.name == NAME for base in list_bases(session)):
            return
    material = load_material(texts, vectors or home / "sentences.npy")
    spec = FixedQuestions({}).spec
    with database.write() as session:
        base = create_base(
            session,
            NAME,
            embedder=spec,
            splitter=SPLITTER,
            fulltext=FULLTEXT,
            support_threshold=DEFAULT_SUPPORT_THRESHOLD,
        )
        source = find_or_add_source(session, base.id, kind="folder", root=NAME, label=NAME)
    started = time.perf_counter()
    per_write = CHUNKS_PER_DOCUMENT * DOCUMENTS_PER_WRITE
    for first in range(0, n_chunks, per_write):
        wanted = min(per_write, n_chunks - first)
        rows = _chunk_vectors(material, wanted, seed=(SEED, first))
        made = list(_documents(material, wanted, first, "first"))
        with database.write() as session:
            _write_at_once(session, base, source, made, rows)
        if first // per_write % 10 == 0:
            _note(f"{first + wanted:,} chunks in {time.perf_counter() - started:.0f} s")
    _note(f"{n_chunks:,} chunks in {time.perf_counter() - started:.0f} s")
    database.close()


def _write_at_once(
    session: Session,
    base: KnowledgeBase,
    source: Source,
    documents: Sequence[PreparedDocument],
    vectors: Vectors,
) -> None:
    """Store what `write_document` would for new documents, with one statement for each table."""
    document_ids = [new_id() for _ in documents]
    chunks = [
        (document_id, position, chunk)
        for document_id, document in zip(document_ids, documents, strict=True)
        for position, chunk in enumerate(document.chunks)
    ]
    keys = [chunk.text_hash for _, _, chunk in chunks]
    store_embeddings(session, base.embedder_id, dict(zip(keys, vectors, strict=True)))
    embedding_ids = find_embeddings(session, base.embedder_id, keys)
    first_id = (session.scalar(select(func.max(ChunkRow.id))) or 0) + 1
    written_at = now()
    session.execute(
        insert(DocumentRow),
        [
            {
                "id": document_id,
                "kb_id": base.id,
                "source_id": source.id,
                "path": document.path,
                "status": "ready",
                "content_hash": document.loaded.content_hash,
                "size_bytes": document.loaded.size_bytes,
                "stat_key": "",
                "updated_at": written_at,
            }
            for document_id, document in zip(document_ids, documents, strict=True)
        ],
    )
    session.execute(
        insert(DocumentVersionRow),
        [
            {
                "document_id": document_id,
                "is_current": True,
                "content_hash": document.loaded.content_hash,
                "text": document.loaded.text,
                "page_starts": [],
                "headings": [],
                "loader": document.loaded.loader,
                "created_at": written_at,
            }
            for document_id, document in zip(document_ids, documents, strict=True)
        ],
    )
    session.execute(
        insert(ChunkRow),
        [
            {
                "id": first_id + i,
                "kb_id": base.id,
                "document_id": document_id,
                "embedding_id": embedding_ids[chunk.text_hash],
                "position": position,
                "start": chunk.start,
                "end": chunk.end,
                "heading": chunk.heading,
            }
            for i, (document_id, position, chunk) in enumerate(chunks)
        ],
    )
    FullText(session, base.id).add_terms(
        [
            (first_id + i, chunk.heading_terms, chunk.text_terms)
            for i, (_, _, chunk) in enumerate(chunks)
        ]
    )
    append_changes(session, base.id, added=range(first_id, first_id + len(chunks)), removed=[])


def ingest_chunks(
    database: Database,
    base: KnowledgeBase,
    source: Source,
    material: Material,
    n_chunks: int,
    prefix: str,
    is_stopped: Callable[[], bool] = lambda: False,
) -> None:
    """Write documents as an ingest does: each in a transaction, after its vectors."""
    for first in range(0, n_chunks, CHUNKS_PER_DOCUMENT):
        for document in _documents(material, CHUNKS_PER_DOCUMENT, first, prefix):
            if is_stopped():
                return
            rows = _chunk_vectors(material, len(document.chunks), seed=(SEED, first, len(prefix)))
            keys = [chunk.text_hash for chunk in document.chunks]
            with database.write() as session:
                store_embeddings(session, base.embedder_id, dict(zip(keys, rows, strict=True)))
            with database.write() as session:
                write_document(session, base, source, document)


def _documents(
    material: Material, n_chunks: int, first: int, prefix: str
) -> Iterator[PreparedDocument]:
    chance = random.Random(f"{prefix}{first}")
    n_sentences = len(material.sentences)
    for start in range(first, first + n_chunks, CHUNKS_PER_DOCUMENT):
        text, chunks = "", []
        for _ in range(start, min(start + CHUNKS_PER_DOCUMENT, first + n_chunks)):
            # Neighbours: sentences of one text stand beside each other.
            places = [chance.randrange(n_sentences)]
            places += [
                (places[0] + chance.randrange(1, 200)) % n_sentences
                for _ in range(SENTENCES_PER_CHUNK - 1)
            ]
            body = "\n".join(material.sentences[place] for place in places) + "\n"
            chunks.append(
                PreparedChunk(
                    start=len(text),
                    end=len(text) + len(body),
                    page=None,
                    heading="",
                    text_hash=text_hash(embedded_text("", body)),
                    heading_terms="",
                    text_terms=" ".join(material.terms[place] for place in places),
                )
            )
            text += body
        yield PreparedDocument(
            path=f"{prefix}/{start}.txt",
            stat_key="",
            loaded=LoadedDocument(text, (), (), None, False, "bench", f"{start:064x}", len(text)),
            chunks=tuple(chunks),
        )


def _chunk_vectors(material: Material, n: int, seed: Sequence[int]) -> Vectors:
    chance = np.random.default_rng(seed)
    real = material.vectors
    own, other, noise = MIX
    rows = own * real[chance.integers(len(real), size=n)]
    rows += other * real[chance.integers(len(real), size=n)]
    scattered = chance.standard_normal((n, real.shape[1]), dtype=np.float32)
    return unit_rows(rows + noise / np.sqrt(real.shape[1]) * scattered)


def load_material(texts: Sequence[Path], vectors: Path) -> Material:
    sentences = _sentences_of(texts)
    if not vectors.exists():
        _note(f"embedding {EMBEDDED_SENTENCES:,} sentences; give --vectors to use others")
        latin = [sentence for sentence in sentences if sentence.isascii()]
        chosen = random.Random(SEED).sample(latin, min(EMBEDDED_SENTENCES, len(latin)))
        np.save(vectors, MiniLMEmbedder().embed_array(chosen).astype(np.float16))
    return Material(
        sentences, [index_terms(s) for s in sentences], np.load(vectors).astype(np.float32)
    )


def _sentences_of(texts: Sequence[Path]) -> list[str]:
    found: dict[str, None] = {}
    for path in texts:
        for text in _column(path, "text"):
            for start, end in split_sentences(text):
                if 15 <= end - start <= 300:
                    found[text[start:end].replace("\n", " ").strip()] = None
    return list(found)


# Measuring


def measure(home: Path, texts: Sequence[Path], vectors: Path | None, asked: list[str]) -> Any:
    """Return the figures of the base in `home`; changes made meanwhile are taken back."""
    from kb.retrieval.retrieve import Retriever

    process = psutil.Process()
    material = load_material(texts, vectors or home / "sentences.npy")
    asked = random.Random(SEED).choices(asked, k=QUERIES) if len(asked) != QUERIES else asked
    distinct = sorted(set(asked))
    known = dict(zip(distinct, _question_vectors(home, distinct), strict=True))
    database = Database.open(home)
    with database.read() as session:
        base = find_base(session, NAME)
        counts = count_base(session, base.id)
    figures: dict[str, Any] = {"chunks": counts.chunks}
    figures["database_gb"] = round((home / "kb.sqlite3").stat().st_size / 2**30, 2)
    figures["count_ms"] = _ms(lambda: _read(database, lambda s: count_base(s, base.id)))

    retriever = Retriever(database, FixedQuestions(known), home / "index")
    before = process.memory_info().rss
    figures["open_s"] = _seconds(lambda: retriever.open(base))
    figures["index_bytes_per_chunk"] = round((process.memory_info().rss - before) / counts.chunks)
    figures |= _searches(database, retriever, base, asked, known)
    # A question in a script that the embedder does not know has no meaningful neighbours.
    meant = [
        row
        for text, row in known.items()
        if knows_scripts(text, MiniLMEmbedder("fp32").spec.scripts)
    ]
    figures |= _recall(database, retriever, base, meant)
    figures |= _changes(database, retriever, base, material, asked)
    figures["peak_memory_gb"] = _peak_gb()
    database.close()
    return figures


def save(home: Path) -> dict[str, Any]:
    """Write a snapshot; of the first one, with training, and of another return the time."""
    from kb.retrieval.index import IndexView

    database = Database.open(home)
    with database.read() as session:
        base = find_base(session, NAME)
        has_one = session.scalar(select(func.count()).select_from(SnapshotRow))
    view = IndexView(database, base, home / "index" / base.id)
    figures: dict[str, Any] = {}
    if not has_one:
        figures["first_snapshot_s"] = _seconds(view.save)
    figures["snapshot_s"] = _seconds(view.save)
    files = sorted((home / "index" / base.id).iterdir(), key=lambda path: path.stat().st_mtime)
    database.close()
    return figures | {
        "snapshot_mb": round(files[-1].stat().st_size / 2**20),
        "snapshot_peak_memory_gb": _peak_gb(),
    }


def _searches(
    database: Database, retriever: Any, base: KnowledgeBase, asked: list[str], known: dict
) -> dict[str, Any]:
    view = retriever.view(base)
    for text in asked[:20]:  # warm the page cache and the segmenter
        retriever.search(Question(text, (base.id,), 5))
    times: dict[str, list[tuple[float, float]]] = {}

    def timed(name: str, step: Callable[[], Any]) -> Any:
        wall, cpu = time.perf_counter(), time.process_time()
        result = step()
        spent = (time.perf_counter() - wall, time.process_time() - cpu)
        times.setdefault(name, []).append(spent)
        return result

    for text in asked:
        question = Question(text, (base.id,), 5)
        timed("hybrid", lambda q=question: retriever.search(q))
        timed("dense", lambda t=text: view.search(known[t], 50))
        with database.read() as session:
            fulltext = FullText(session, base.id)
            stats = timed("terms", lambda t=text, f=fulltext: f.stats(t))
            timed("lexical", lambda t=text, f=fulltext, s=stats: f.search(t, 50, stats=s))
    return {
        name: {
            "p50_ms": _p([wall for wall, _ in values], 50),
            "p95_ms": _p([wall for wall, _ in values], 95),
            "max_ms": _p([wall for wall, _ in values], 100),
            "cpu_p50_ms": _p([cpu for _, cpu in values], 50),
            "cpu_p95_ms": _p([cpu for _, cpu in values], 95),
        }
        for name, values in times.items()
    }


def _recall(
    database: Database, retriever: Any, base: KnowledgeBase, queries: Sequence[Vectors]
) -> dict[str, Any]:
    """Compare with exact search over the vectors in the database, read in blocks."""
    wanted = np.stack(queries)
    best_ids = np.zeros((len(wanted), 0), dtype=np.int64)
    best = np.zeros((len(wanted), 0), dtype=np.float32)
    with database.read() as session:
        rows = session.execute(
            select(ChunkRow.id, EmbeddingRow.vector)
            .join(EmbeddingRow, ChunkRow.embedding_id == EmbeddingRow.id)
            .where(ChunkRow.kb_id == base.id)
            .execution_options(yield_per=20_000)
        )
        for part in rows.partitions(20_000):
            block = from_bytes([blob for _, blob in part], base.embedder.dimension)
            ids = np.array([id_ for id_, _ in part])
            best = np.hstack([best, wanted @ block.T])
            best_ids = np.hstack([best_ids, np.broadcast_to(ids, (len(wanted), len(ids)))])
            order = np.argsort(-best, axis=1)[:, :10]
            best = np.take_along_axis(best, order, axis=1)
            best_ids = np.take_along_axis(best_ids, order, axis=1)
    view = retriever.view(base)
    shares = [
        len({id_ for id_, _ in view.search(query, 10)} & set(exact.tolist())) / len(exact)
        for query, exact in zip(queries, best_ids, strict=True)
    ]
    return {"recall_at_10": round(statistics.mean(shares), 4), "worst_recall": min(shares)}


def _changes(
    database: Database, retriever: Any, base: KnowledgeBase, material: Material, asked: list[str]
) -> dict[str, Any]:
    view = retriever.view(base)
    with database.write() as session:
        source = find_or_add_source(session, base.id, kind="folder", root=NAME, label=NAME)
    figures: dict[str, Any] = {}

    def search() -> None:
        retriever.search(Question(asked[0], (base.id,), 5))

    def add(n: int, prefix: str, **more: Any) -> None:
        ingest_chunks(database, base, source, material, n, prefix, **more)

    figures["add_1000_s"] = _seconds(lambda: add(1000, "added"))
    figures["search_after_add_ms"] = _ms(search)
    figures["remove_1000_s"] = _seconds(lambda: _remove(database, base, "added"))
    figures["search_after_remove_ms"] = _ms(search)
    add(10_000, "more")
    figures["replay_10000_adds_s"] = _seconds(view.open)
    _remove(database, base, "more")
    figures["replay_10000_removals_s"] = _seconds(view.open)

    stop = threading.Event()
    writer = threading.Thread(target=lambda: add(20_000, "beside", is_stopped=stop.is_set))
    started = time.perf_counter()
    writer.start()
    times = []
    while writer.is_alive() and time.perf_counter() - started < 60:
        text = asked[len(times) % len(asked)]
        times.append(_seconds(lambda t=text: retriever.search(Question(t, (base.id,), 5))))
        time.sleep(0.02)
    stop.set()
    writer.join()
    figures["hybrid_while_writing"] = {
        "searches": len(times),
        "p50_ms": _p(times, 50),
        "p95_ms": _p(times, 95),
        "max_ms": _p(times, 100),
    }
    figures["chunks_written_meanwhile"] = _remove(database, base, "beside")
    view.open()
    with database.read() as session:
        figures["log_events"] = (lambda state: state.head - state.floor)(
            log_state(session, base.id)
        )
    return figures


def _remove(database: Database, base: KnowledgeBase, prefix: str) -> int:
    with database.read() as session:
        ids = session.scalars(
            select(DocumentRow.id).where(
                DocumentRow.kb_id == base.id, DocumentRow.path.startswith(prefix + "/")
            )
        ).all()
    removed = 0
    for first in range(0, len(ids), 500):  # as a sync does
        with database.write() as session:
            removed += remove_documents(session, base.id, ids[first : first + 500])
    return removed


def _question_vectors(home: Path, asked: list[str]) -> Vectors:
    cached = home / "questions.npz"
    if cached.exists():
        stored = np.load(cached)
        if stored["texts"].tolist() == asked:
            return stored["rows"]
    rows = MiniLMEmbedder().embed_array(asked)
    np.savez(cached, texts=np.array(asked), rows=rows)
    return rows


def _column(path: Path, key: str) -> list[str]:
    lines = path.read_text(encoding="utf-8").split("\n")
    return [json.loads(line)[key] for line in lines if line]


def _read(database: Database, step: Callable[[Any], Any]) -> Any:
    with database.read() as session:
        return step(session)


def _seconds(step: Callable[[], Any]) -> float:
    started = time.perf_counter()
    step()
    return round(time.perf_counter() - started, 4)


def _ms(step: Callable[[], Any]) -> float:
    return round(_seconds(step) * 1000, 1)


def _p(seconds: Sequence[float], percent: float) -> float:
    return round(float(np.percentile(seconds, percent)) * 1000, 1)


def _peak_gb() -> float:
    import resource

    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2)


def _note(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--chunks", type=int, default=1_000_000)
    parser.add_argument("--texts", type=Path, nargs="+", required=True, help="JSON lines: text")
    parser.add_argument("--questions", type=Path, nargs="+", required=True, help="... : question")
    parser.add_argument("--vectors", type=Path, help="unit rows (.npy) instead of embedding some")
    parser.add_argument("--home", type=Path, help="keep the base here, or use the one that is")
    parser.add_argument("--fill-only", action="store_true")
    args = parser.parse_args()
    home = args.home or Path(tempfile.mkdtemp(prefix="kb-million-"))
    home.mkdir(parents=True, exist_ok=True)
    try:
        if args.fill_only:
            fill(home, args.chunks, args.texts, args.vectors)
            print(json.dumps(save(home)))
            return
        # In a process of its own, so that the figures of memory are of searching alone.
        command = [sys.executable, "-m", "benchmarks.million", *sys.argv[1:], "--fill-only"]
        filled = subprocess.run(
            [*command, "--home", str(home)], check=True, stdout=subprocess.PIPE, text=True
        )
        asked = [question for path in args.questions for question in _column(path, "question")]
        figures = measure(home, args.texts, args.vectors, asked)
        print(json.dumps(figures | json.loads(filled.stdout), indent=1))
    finally:
        if args.home is None:
            shutil.rmtree(home, ignore_errors=True)


if __name__ == "__main__":
    main()
