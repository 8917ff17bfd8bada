"""Choose and open the tokenizer of a checkpoint folder."""

from pathlib import Path

from llm.errors import CheckpointError, UnsupportedModelError
from llm.tokenizers.base import Tokenizer
from llm.tokenizers.chatglm1 import ChatGlm1Tokenizer, missing_pieces
from llm.tokenizers.chatglm2 import ChatGlm2Tokenizer
from llm.tokenizers.glm4 import Glm4Tokenizer, load_ranks
from llm.tokenizers.pieces import load_pieces


def load_tokenizer(folder: Path, generation: str, *, id_offset: int = 0) -> Tokenizer:
    """Open the tokenizer in `folder`; takes about half a second.

    Args:
        folder: the checkpoint's folder, with `ice_text.model` (ChatGLM-6B) or `tokenizer.model`.
        generation: "chatglm", "chatglm2", "chatglm3" or "glm4".
        id_offset: 20000 for a ChatGLM-6B with a vocabulary of 150528, else 0.

    Raises:
        CheckpointError: the file is missing, damaged, or another model's.
        UnsupportedModelError: there is no such generation.
    """
    if id_offset and generation != "chatglm":
        raise ValueError(f"only ChatGLM-6B has an offset of ids, not {generation!r}")
    match generation:
        case "chatglm":
            return _load_chatglm1(folder / "ice_text.model", id_offset)
        case "chatglm2" | "chatglm3":
            pieces = load_pieces(folder / "tokenizer.model")
            return ChatGlm2Tokenizer(pieces, has_roles=generation == "chatglm3")
        case "glm4":
            return Glm4Tokenizer(load_ranks(folder / "tokenizer.model"))
    raise UnsupportedModelError(
        f"no tokenizer for the model generation {generation!r}; "
        "there are chatglm, chatglm2, chatglm3 and glm4"
    )


def _load_chatglm1(path: Path, id_offset: int) -> Tokenizer:
    pieces = load_pieces(path)
    if missing := missing_pieces(pieces):
        raise CheckpointError(
            f"{path} has no piece {missing[0]}, so it is not ChatGLM-6B's; "
            "download ice_text.model from that model's page"
        )
    return ChatGlm1Tokenizer(pieces, id_offset=id_offset)
