"""The tokenizer of ChatGLM-6B.

`ice_text.model` is a SentencePiece model that has pieces for white space it cannot carry
otherwise: ``<n>``, ``<|tab|>`` and ``<|blank_2|>`` to ``<|blank_80|>``. Its special tokens are
pieces as well. The published code replaces white space by these names and encodes the result, so
that there a user who types ``<n>`` gets a line break, and one who types ``[gMASK]`` may end the
prompt. Here a text is cut at its white space, the parts are encoded, and any of these pieces that
appears in a part was typed (or normalised from look-alikes such as ＜n＞) and is spelled out.

The model normalises text (full-width forms become ASCII and so on), so what comes back from
encoding and decoding is the normalised text.
"""

import re

from sentencepiece import SentencePieceProcessor

from llm.tokenizers.base import PieceTokenizer, replace_surrogates
from llm.tokenizers.pieces import bytes_of_pieces

_MARKS = ("[MASK]", "[gMASK]", "[sMASK]", "<unused_0>", "<sop>", "<eop>", "<ENC>", "<dBLOCK>")
_LINE_BREAK = "<n>"
_WHITE_SPACE = {_LINE_BREAK: "\n", "<|tab|>": "\t"} | {
    f"<|blank_{n}|>": " " * n for n in range(2, 81)
}
_CONTROLS = ("<s>", "</s>", "<pad>")
# A run of more than 80 spaces is several pieces, the longest first.
_CUT = re.compile(r"\n|\t| {2,80}")


def missing_pieces(pieces: SentencePieceProcessor) -> list[str]:
    """Return what a model lacks to be ChatGLM-6B's, nothing if it may be."""
    marks = [name for name in _MARKS if pieces.piece_to_id(name) == pieces.unk_id()]
    # White space has to stay in one piece when it is encoded.
    return marks + [name for name in _WHITE_SPACE if pieces.encode(name, out_type=str)[-1] != name]


class ChatGlm1Tokenizer(PieceTokenizer):
    """A SentencePiece model whose pieces include white space and special tokens.

    `id_offset` is 20000 for the first checkpoints of March 2023 (vocab_size 150528), whose ids
    begin with image tokens.
    """

    drops_leading_space = True

    def __init__(self, pieces: SentencePieceProcessor, *, id_offset: int = 0) -> None:
        """Store `pieces`, a model that lacks nothing (see `missing_pieces`)."""
        marks = {name: pieces.piece_to_id(name) for name in _MARKS}
        white_space = {pieces.piece_to_id(name): text for name, text in _WHITE_SPACE.items()}
        table = bytes_of_pieces(pieces)
        for mark in marks.values():
            table[mark] = b""
        for piece_id, text in white_space.items():
            table[piece_id] = text.encode()
        super().__init__(table, first_id=id_offset)

        self._model = pieces
        self._line_break = pieces.piece_to_id(_LINE_BREAK)
        self._white_space = {text: piece_id for piece_id, text in white_space.items()}
        self._spelled = {
            pieces.piece_to_id(name): [i for character in name for i in self._inner(character)]
            for name in (*_MARKS, *_WHITE_SPACE, *_CONTROLS)
        }
        self._spelled.pop(pieces.unk_id(), None)  # what a name without a piece gets

        self.vocab_size = id_offset + len(table)
        self.special_ids = {name: id_offset + mark for name, mark in marks.items()}
        self.prefix_ids = ()
        self.suffix_ids = (self.special_ids["[gMASK]"], self.special_ids["<sop>"])
        self.stop_ids = frozenset({self.special_ids["<eop>"]})

    def encode(self, text: str) -> list[int]:
        """Return the ids of plain text; see `Tokenizer.encode`."""
        text = replace_surrogates(text)
        ids: list[int] = []
        start = 0
        for cut in _CUT.finditer(text):
            ids += self._part(text[start : cut.start()], is_first=start == 0, is_last=False)
            ids.append(self._white_space[cut.group()])
            start = cut.end()
        ids += self._part(text[start:], is_first=start == 0, is_last=True)
        return [piece_id + self._first_id for piece_id in ids]

    def _part(self, text: str, *, is_first: bool, is_last: bool) -> list[int]:
        """Encode the text between two cuts, with typed names of pieces spelled out."""
        ids: list[int] = []
        for piece_id in self._inner(text, is_first=is_first, is_last=is_last):
            ids += self._spelled.get(piece_id, (piece_id,))
        return ids

    def _inner(self, text: str, *, is_first: bool = False, is_last: bool = False) -> list[int]:
        """Encode `text` as it stands between line breaks, unless it is at the text's ends.

        SentencePiece puts a space before a text and may trim the spaces around it; inside a text
        it does not.
        """
        before, after = "" if is_first else _LINE_BREAK, "" if is_last else _LINE_BREAK
        ids = list(self._model.encode(before + text + after))
        if before:
            ids = ids[ids.index(self._line_break) + 1 :]
        return ids[:-1] if after else ids
