"""The embedder's forms side by side: texts per second, and cosine to fp32.

    python -m benchmarks.embedder_forms CORPUS.jsonl [--texts 512] [--turns 3]

The forms take turns in one process, so that a machine that drifts slows both. `speedup` is the
median over the turns of the time in fp32 over the time in the form.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import numpy as np

from ingest.embedder import MiniLMEmbedder, fastest_form
from kb.embedder import Embedder
from kb.protocols import Vectors


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    arguments.add_argument("corpus", type=Path, help="JSON lines with `text`")
    arguments.add_argument("--texts", type=int, default=512)
    arguments.add_argument("--batch", type=int, default=16)
    arguments.add_argument("--turns", type=int, default=3)
    given = arguments.parse_args()

    lines = given.corpus.read_text(encoding="utf-8").split("\n")
    texts = [json.loads(line)["text"][:600] for line in lines if line][: given.texts]
    forms = {
        "fp32": MiniLMEmbedder("fp32", batch_size=given.batch),
        "bf16": MiniLMEmbedder("bf16", batch_size=given.batch),
    }
    vectors: dict[str, Vectors] = {}
    seconds: dict[str, list[float]] = {name: [] for name in forms}
    for embedder in forms.values():
        embedder.embed_array(texts[:32])
    for _ in range(given.turns):
        for name, embedder in forms.items():
            vectors[name], taken = _timed(embedder, texts)
            seconds[name].append(taken)
    cosines = (vectors["fp32"] * vectors["bf16"]).sum(axis=1)
    ratios = [a / b for a, b in zip(seconds["fp32"], seconds["bf16"], strict=True)]
    print(
        json.dumps(
            {
                "chosen_here": fastest_form(),
                "texts": len(texts),
                "texts_per_s": {
                    name: round(len(texts) / statistics.median(taken), 1)
                    for name, taken in seconds.items()
                },
                "speedup": round(statistics.median(ratios), 2),
                "cosine_mean": round(float(cosines.mean()), 6),
                "cosine_min": round(float(np.min(cosines)), 6),
            }
        )
    )


def _timed(embedder: Embedder, texts: list[str]) -> tuple[Vectors, float]:
    started = time.perf_counter()
    vectors = embedder.embed_array(texts)
    return vectors, time.perf_counter() - started


if __name__ == "__main__":
    main()
