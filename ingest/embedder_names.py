"""Embedders known by name: what their publishers say of prefixes, pooling, scripts and sizes.

Settings only, taken from the published model cards; weights come from a folder or `kb model pull`.
An embedder that is not in the table works from its folder with settings of its own
(`ingest.embedder_folders`).
"""

from dataclasses import dataclass
from typing import Literal

# How token vectors become one: that of the first token, or their mean; "" where a folder says it.
Pooling = Literal["", "cls", "mean"]

# The scripts, by ISO 15924, that models for about 100 languages were trained on and that
# `kb.retrieval.fusion` tells apart.
MANY = frozenset(
    {"Latn", "Hani", "Hira", "Kana", "Hang", "Cyrl", "Grek"}
    | {"Arab", "Hebr", "Thai", "Deva", "Armn", "Geor"}
)
HANI = frozenset({"Hani"})
LATN = frozenset({"Latn"})
BOTH = HANI | LATN

_BGE_ZH = "为这个句子生成表示以用于检索相关文章："
_BGE_EN = "Represent this sentence for searching relevant passages: "


@dataclass(frozen=True, slots=True)
class KnownEmbedder:
    """A published embedder: `repo` is on Hugging Face, `max_tokens` the longest text it reads.

    `pooling` is used where the folder has no `modules.json`, as after `kb model pull`.
    """

    repo: str
    dimension: int
    max_tokens: int
    pooling: Pooling
    scripts: frozenset[str]
    query_prefix: str = ""
    passage_prefix: str = ""


def _bge_zh(size: str, dimension: int) -> KnownEmbedder:
    repo = f"BAAI/bge-{size}-zh-v1.5"
    return KnownEmbedder(repo, dimension, 512, "cls", HANI, query_prefix=_BGE_ZH)


def _bge_en(size: str, dimension: int) -> KnownEmbedder:
    repo = f"BAAI/bge-{size}-en-v1.5"
    return KnownEmbedder(repo, dimension, 512, "cls", LATN, query_prefix=_BGE_EN)


def _e5(size: str, dimension: int) -> KnownEmbedder:
    repo = f"intfloat/multilingual-e5-{size}"
    return KnownEmbedder(repo, dimension, 512, "mean", MANY, "query: ", "passage: ")


KNOWN_EMBEDDERS: dict[str, KnownEmbedder] = {
    "bge-small-zh-v1.5": _bge_zh("small", 512),
    "bge-base-zh-v1.5": _bge_zh("base", 768),
    "bge-large-zh-v1.5": _bge_zh("large", 1024),
    "bge-small-en-v1.5": _bge_en("small", 384),
    "bge-base-en-v1.5": _bge_en("base", 768),
    "bge-large-en-v1.5": _bge_en("large", 1024),
    "bge-m3": KnownEmbedder("BAAI/bge-m3", 1024, 8192, "cls", MANY),
    "text2vec-base-chinese": KnownEmbedder(
        "shibing624/text2vec-base-chinese", 768, 128, "mean", HANI
    ),
    "m3e-base": KnownEmbedder("moka-ai/m3e-base", 768, 512, "mean", BOTH),
    "gte-base-zh": KnownEmbedder("thenlper/gte-base-zh", 768, 512, "cls", HANI),
    "gte-large-zh": KnownEmbedder("thenlper/gte-large-zh", 1024, 512, "cls", HANI),
    "multilingual-e5-small": _e5("small", 384),
    "multilingual-e5-base": _e5("base", 768),
    "multilingual-e5-large": _e5("large", 1024),
    "paraphrase-multilingual-MiniLM-L12-v2": KnownEmbedder(
        "sentence-transformers/paraphrase-multilingual-MiniLM-L12-v2", 384, 128, "mean", MANY
    ),
}

# Known, and refused: their layers are defined by code that comes with the weights.
NEED_CODE = frozenset({"gte-multilingual-base", "jina-embeddings-v2-base-zh"})
