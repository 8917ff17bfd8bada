"""The tokenizer of ChatGLM2-6B and ChatGLM3-6B.

Both use the same SentencePiece file. Their special tokens are not in it: they follow its last
piece, and ChatGLM3 adds the roles of a conversation.

The model keeps text as it is, but for U+2581 (▁), which it reads as a space.
"""

from sentencepiece import SentencePieceProcessor

from llm.tokenizers.base import PieceTokenizer, replace_surrogates
from llm.tokenizers.pieces import bytes_of_pieces

_MARKS = ("[MASK]", "[gMASK]", "[sMASK]", "sop", "eop")
_ROLES = ("<|system|>", "<|user|>", "<|assistant|>", "<|observation|>")


class ChatGlm2Tokenizer(PieceTokenizer):
    """A SentencePiece model with special tokens after it, with roles for ChatGLM3."""

    drops_leading_space = True

    def __init__(self, pieces: SentencePieceProcessor, *, has_roles: bool) -> None:
        super().__init__(bytes_of_pieces(pieces))
        self._model = pieces
        n_pieces = pieces.get_piece_size()
        names = _MARKS + _ROLES if has_roles else _MARKS
        self.special_ids = {name: n_pieces + i for i, name in enumerate(names)}
        self.vocab_size = n_pieces + len(names)
        self.prefix_ids = (self.special_ids["[gMASK]"], self.special_ids["sop"])
        stops = ("<|user|>", "<|observation|>") if has_roles else ()
        self.stop_ids = frozenset({pieces.eos_id(), *(self.special_ids[name] for name in stops)})

    def encode(self, text: str) -> list[int]:
        """Return the ids of plain text; see `Tokenizer.encode`."""
        return list(self._model.encode(replace_surrogates(text)))
