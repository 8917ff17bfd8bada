"""Turn a reply's tokens into text while they arrive.

The pieces that come out, joined, are the decoded reply up to its first stop string: half a
character or the beginning of a stop string waits for what follows. One step costs the same
however long the reply is.
"""

import codecs
from collections.abc import Sequence

from llm.errors import GenerationError
from llm.tokenizers.base import Tokenizer


class TextStream:
    """The text of one reply; not for several threads at once."""

    def __init__(self, tokenizer: Tokenizer, stop: Sequence[str] = ()) -> None:
        """Start a reply that ends before the first of the strings `stop`.

        Raises:
            GenerationError: a stop string is empty.
        """
        if "" in stop:
            raise GenerationError("a stop string is empty; leave it out")
        self.is_stopped = False
        self._tokenizer = tokenizer
        self._stop = tuple(stop)
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._drops_space = tokenizer.drops_leading_space
        self._assistant = tokenizer.special_ids.get("<|assistant|>")
        self._held = ""  # decoded, and perhaps the beginning of a stop string

    def push(self, token_id: int) -> str:
        """Take the next token and return the text that is certain now, often none.

        A model may go on with a second message of its own, a tool call after an explanation. The
        token between them counts as a line break here.
        """
        if self.is_stopped:
            return ""
        is_new_message = token_id == self._assistant
        piece = b"\n" if is_new_message else self._tokenizer.token_bytes(token_id)
        if self._drops_space and piece:
            piece = piece.removeprefix(b" ")
            self._drops_space = False
        return self._release(self._decoder.decode(piece))

    def finish(self) -> str:
        """Return what was still held back. Half a character comes out as U+FFFD."""
        if self.is_stopped:
            return ""
        certain = self._release(self._decoder.decode(b"", final=True))
        rest, self._held = self._held, ""
        return certain + rest

    def _release(self, text: str) -> str:
        """Add `text` to what is held, and return what no stop string can begin with."""
        text = self._held + text
        # The stop string that is complete first counts, however the text is cut into tokens.
        found = [(at + len(stop), at) for stop in self._stop if (at := text.find(stop)) >= 0]
        if found:
            self.is_stopped = True
            self._held = ""
            return text[: min(found)[1]]
        n_held = max((_overlap(text, stop) for stop in self._stop), default=0)
        self._held = text[len(text) - n_held :]
        return text[: len(text) - n_held]


def _overlap(text: str, stop: str) -> int:
    """Return how many characters at the end of `text` may be the beginning of `stop`."""
    start = text.find(stop[0], max(0, len(text) - len(stop) + 1))
    while start >= 0:
        if stop.startswith(text[start:]):
            return len(text) - start
        start = text.find(stop[0], start + 1)
    return 0
