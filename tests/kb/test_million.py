"""The benchmark of a million chunks writes what an ingest would."""

import json
from pathlib import Path

import numpy as np

from benchmarks.million import NAME, FixedQuestions, fill, ingest_chunks, load_material
from ingest.splitter import SPLITTER
from kb.embedder import unit_rows
from kb.retrieval.retrieve import Retriever
from kb.storage.bases import find_base, find_or_add_source
from kb.storage.blobs import Blobs
from kb.storage.database import Database
from kb.upkeep.verify import verify


def test_a_base_that_the_benchmark_made_passes_verification(tmp_path: Path) -> None:
    texts = tmp_path / "texts.jsonl"
    sentences = [
        f"The pump number {i} of the plant is checked. 第{i}号泵每年检查。" for i in range(40)
    ]
    texts.write_text("\n".join(json.dumps({"text": sentence}) for sentence in sentences))
    vectors = tmp_path / "vectors.npy"
    np.save(vectors, unit_rows(np.random.default_rng(0).normal(size=(20, 384))))

    fill(tmp_path, 130, [texts], vectors)
    fill(tmp_path, 130, [texts], vectors)  # what is there stays

    database = Database.open(tmp_path)
    with database.write() as session:
        base = find_base(session, NAME)
        source = find_or_add_source(session, base.id, kind="folder", root=NAME, label=NAME)
    ingest_chunks(database, base, source, load_material([texts], vectors), 40, "more")
    retriever = Retriever(database, FixedQuestions({}), tmp_path / "index")
    report = verify(database, retriever, Blobs(tmp_path), splitter=SPLITTER)
    assert report.problems == ()
    assert report.chunks == 170
    assert retriever.open(base) == 170
    database.close()
