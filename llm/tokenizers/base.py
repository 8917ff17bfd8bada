"""What the tokenizers share: the protocol, decoding, and reading their files.

Encoding is for plain text only. No spelling of a special token, typed by a user or found in a
document, ever becomes that token: specials are placed by id, in `llm.chat_format`.

Decoding joins the bytes of the tokens, so a text can be decoded one token at a time (see
`llm.detokenize`) and comes out as if it had been decoded at once.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from llm.files import check_file

_SURROGATE = re.compile("[\ud800-\udfff]")


class Tokenizer(Protocol):
    """One generation's vocabulary.

    Attributes:
        vocab_size: how many ids have a name; a model may have more rows than that.
        special_ids: name to id of the tokens that no text encodes to.
        prefix_ids: what every prompt begins with.
        suffix_ids: what every prompt ends with (ChatGLM-6B only).
        stop_ids: a reply is over when the model chooses one of these.
        drops_leading_space: the bytes of an encoded text begin with a space that is not in it.
    """

    vocab_size: int
    special_ids: Mapping[str, int]
    prefix_ids: tuple[int, ...]
    suffix_ids: tuple[int, ...]
    stop_ids: frozenset[int]
    drops_leading_space: bool

    def encode(self, text: str) -> list[int]:
        """Return the ids of plain text, without prefix or suffix.

        Lone surrogates, which UTF-8 cannot write, are read as U+FFFD.
        """

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of `ids`, leaving out specials and ids beyond the vocabulary.

        Bytes that are no UTF-8 become U+FFFD.
        """

    def token_bytes(self, token_id: int) -> bytes:
        """Return what one token adds to a text: nothing for specials and unknown ids.

        A character may be spread over several tokens.
        """


class PieceTokenizer(ABC):
    """Decoding from a table of bytes; subclasses encode."""

    vocab_size: int
    special_ids: Mapping[str, int]
    prefix_ids: tuple[int, ...]
    suffix_ids: tuple[int, ...] = ()
    stop_ids: frozenset[int]
    drops_leading_space: bool

    def __init__(self, pieces: Sequence[bytes], *, first_id: int = 0) -> None:
        """Store `pieces`, the bytes of the ids from `first_id` on."""
        self._pieces = pieces
        self._first_id = first_id

    @abstractmethod
    def encode(self, text: str) -> list[int]:
        """Return the ids of plain text; see `Tokenizer.encode`."""

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of `ids`; see `Tokenizer.decode`."""
        text = b"".join(map(self.token_bytes, ids))
        if self.drops_leading_space:
            text = text.removeprefix(b" ")
        return text.decode("utf-8", "replace")

    def token_bytes(self, token_id: int) -> bytes:
        """Return what one token adds to a text; see `Tokenizer.token_bytes`."""
        index = token_id - self._first_id
        return self._pieces[index] if 0 <= index < len(self._pieces) else b""


def replace_surrogates(text: str) -> str:
    """Replace lone surrogates, which no UTF-8 can carry, by U+FFFD."""
    return _SURROGATE.sub("\ufffd", text)


def read_tokenizer_file(path: Path) -> bytes:
    """Read a vocabulary file whole (a few megabytes).

    Raises:
        CheckpointError: it is missing, unreadable, empty, or a Git LFS pointer.
    """
    check_file(path)
    return path.read_bytes()
