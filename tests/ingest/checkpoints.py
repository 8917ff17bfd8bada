"""Tiny sentence-transformers checkpoints of random weights, as a hub publishes them."""

import json
from pathlib import Path

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "query", "passage", ":"]
WORDS += ["pump", "oil", "hall", "crew", "hours", "the", "is", "every", "in", "a", "90", "has"]
WORDS += list("泵油每小时检查一次在车间年假十天")


def make_embedder(
    folder: Path,
    *,
    dimension: int = 16,
    seed: int = 3,
    with_modules: bool = True,
    prompts: dict[str, str] | None = None,
) -> Path:
    """Write a BERT of one layer, by default as sentence-transformers saves it; return its folder.

    Without modules the folder holds a transformer alone, as `kb model pull` leaves it.
    """
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
    from transformers import BertConfig, BertModel, BertTokenizer

    plain = folder if not with_modules else folder.with_name(folder.name + ".plain")
    plain.mkdir(parents=True)
    (plain / "vocab.txt").write_text("\n".join(dict.fromkeys(WORDS)), encoding="utf-8")
    BertTokenizer(str(plain / "vocab.txt")).save_pretrained(plain)
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=len(dict.fromkeys(WORDS)),
        hidden_size=dimension,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=64,
        initializer_range=1.0,
    )
    BertModel(config).save_pretrained(plain)
    if with_modules:
        pooling = Pooling(dimension, "mean")
        model = SentenceTransformer(modules=[Transformer(str(plain)), pooling], device="cpu")
        model.save(str(folder), create_model_card=False)
        if prompts is not None:
            path = folder / "config_sentence_transformers.json"
            told = json.loads(path.read_text(encoding="utf-8")) | {"prompts": prompts}
            path.write_text(json.dumps(told), encoding="utf-8")
    return folder
