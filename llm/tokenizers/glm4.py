"""The tokenizer of GLM-4-9B: byte-level BPE, with its merges in the text format of tiktoken.

Text comes back from encoding and decoding as it was, but for lone surrogates.
"""

import base64
import binascii
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import tiktoken

from llm.errors import CheckpointError
from llm.tokenizers.base import PieceTokenizer, read_tokenizer_file, replace_surrogates

N_RANKS = 151329

_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_SPECIALS = (
    "<|endoftext|>",
    "[MASK]",
    "[gMASK]",
    "[sMASK]",
    "<sop>",
    "<eop>",
    "<|system|>",
    "<|user|>",
    "<|assistant|>",
    "<|observation|>",
    "<|begin_of_image|>",
    "<|end_of_image|>",
    "<|begin_of_video|>",
    "<|end_of_video|>",
)
# tiktoken's regular expressions give up with a panic at about a million blanks in a row. Cutting
# such runs changes nothing else.
_LONG_BLANK = re.compile(r"\s{10000}")


class Glm4Tokenizer(PieceTokenizer):
    """Byte-level BPE with special tokens after the last rank."""

    drops_leading_space = False

    def __init__(self, ranks: Mapping[bytes, int]) -> None:
        """Store `ranks`: bytes to id, every single byte among them, ids 0 to n - 1."""
        super().__init__(sorted(ranks, key=ranks.__getitem__))
        self._encoding = tiktoken.Encoding(
            "glm4", pat_str=_PATTERN, mergeable_ranks=dict(ranks), special_tokens={}
        )
        self.special_ids = {name: len(ranks) + i for i, name in enumerate(_SPECIALS)}
        self.vocab_size = len(ranks) + len(_SPECIALS)
        self.prefix_ids = (self.special_ids["[gMASK]"], self.special_ids["<sop>"])
        stops = ("<|endoftext|>", "<|user|>", "<|observation|>")
        self.stop_ids = frozenset(self.special_ids[name] for name in stops)

    def encode(self, text: str) -> list[int]:
        """Return the ids of plain text; see `Tokenizer.encode`."""
        parts = _parts(replace_surrogates(text))
        return [token_id for part in parts for token_id in self._encoding.encode_ordinary(part)]


def load_ranks(path: Path) -> dict[bytes, int]:
    """Read GLM-4's merges: a line each with base64 of the bytes and the rank.

    Raises:
        CheckpointError: the file is missing, damaged, or something else.
    """
    ranks: dict[bytes, int] = {}
    try:
        for line in read_tokenizer_file(path).splitlines():
            piece, rank = line.split()
            ranks[base64.b64decode(piece, validate=True)] = int(rank)
    except (ValueError, binascii.Error) as exc:
        raise CheckpointError(
            f"{path} is damaged or not GLM-4's list of ranks (ChatGLM2 and 3 have another file of "
            "that name); download it again, and check that it belongs to this model"
        ) from exc
    if sorted(ranks.values()) != list(range(N_RANKS)):
        raise CheckpointError(
            f"{path} holds {len(ranks)} ranks where GLM-4 has {N_RANKS}, so it is cut short or "
            "from another model; download it again"
        )
    return ranks


def _parts(text: str) -> Iterator[str]:
    start = 0
    for blank in _LONG_BLANK.finditer(text):
        yield text[start : blank.end()]
        start = blank.end()
    yield text[start:]
