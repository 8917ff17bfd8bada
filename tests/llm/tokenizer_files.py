"""Small vocabularies of each generation's kind, made on the spot, and where the real ones are."""

import base64
import functools
import io
import itertools
import math
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sentencepiece

VECTORS = Path(__file__).resolve().parents[3] / "shared" / "vectors"
needs_vectors = pytest.mark.skipif(
    not VECTORS.is_dir(), reason="the published vocabularies are not in ../shared/vectors"
)

MARKS = ("[MASK]", "[gMASK]", "[sMASK]", "<unused_0>", "<sop>", "<eop>", "<ENC>", "<dBLOCK>")
WHITE_SPACE = ("<n>", "<|tab|>", *(f"<|blank_{n}|>" for n in range(2, 81)))
SENTENCES = (
    "满五年的员工每年有十天年假，未休完的年假可以结转五天。",
    "出差住宿费在标准以内据实报销：每晚不超过 500 元！",
    "Change the pump oil every 500 hours; see [Round 1] of the manual, please.",
    "问：设备多久换一次油？\n答：每 500 小时。",
    "def main(): return {'a': 1, \"b\": [x for x in range(10)]}",
)


def train(**options: Any) -> bytes:
    """Return a SentencePiece model file with byte fallback."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES * 20),
        model_writer=model,
        byte_fallback=True,
        hard_vocab_limit=False,
        num_threads=1,
        minloglevel=2,
        **options,
    )
    return model.getvalue()


@functools.cache
def chatglm1_model(*, trims_space: bool = False, has_typeable_marks: bool = True) -> bytes:
    """Return a model like ice_text.model.

    What the real one does with spaces at the ends, and whether typed marks match its pieces, is
    not known here.
    """
    marks = "user_defined_symbols" if has_typeable_marks else "control_symbols"
    return train(
        model_type="unigram",
        vocab_size=600,
        normalization_rule_name="nmt_nfkc",
        remove_extra_whitespaces=trims_space,
        pad_id=3,
        **{"user_defined_symbols": list(WHITE_SPACE)}
        | {marks: [*(WHITE_SPACE if has_typeable_marks else ()), *MARKS]},
    )


@functools.cache
def chatglm2_model() -> bytes:
    """Return a model like the tokenizer.model of ChatGLM2 and 3, but small."""
    return train(
        model_type="bpe",
        vocab_size=500,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
    )


@functools.cache
def glm4_ranks() -> bytes:
    """Return a rank file as long as GLM-4's: all single bytes, then pairs, then triples."""
    pieces = (
        bytes(piece) for size in (1, 2, 3) for piece in itertools.product(range(256), repeat=size)
    )
    lines = (
        base64.b64encode(piece) + b" %d\n" % rank
        for rank, piece in enumerate(itertools.islice(pieces, 151329))
    )
    return b"".join(lines)


def write_tokenizer(folder: Path, generation: str) -> Path:
    """Write a vocabulary of `generation` into `folder` and return the folder."""
    match generation:
        case "chatglm":
            (folder / "ice_text.model").write_bytes(chatglm1_model())
        case "chatglm2" | "chatglm3":
            (folder / "tokenizer.model").write_bytes(chatglm2_model())
        case "glm4":
            (folder / "tokenizer.model").write_bytes(glm4_ranks())
    return folder


def replace_pieces(model: bytes, pieces: Iterable[tuple[str, int]]) -> bytes:
    """Return a model file with other pieces, each with its type.

    Their scores, logarithms of probabilities, are guessed: frequent pieces first. A SentencePiece
    file is a protocol buffer: pieces are its first field, settings the others.
    """
    written = b"".join(
        # 1: the text, 2: the score as a float, 3: the type
        _field(
            1,
            _field(1, piece.encode())
            + struct.pack("<Bf", 0x15, -math.log(rank + 10))
            + bytes([0x18, kind]),
        )
        for rank, (piece, kind) in enumerate(pieces)
    )
    return written + b"".join(_field(key, body) for key, body in _fields(model) if key != 1)


def _field(key: int, body: bytes) -> bytes:
    return bytes([key << 3 | 2]) + _varint(len(body)) + body


def _varint(number: int) -> bytes:
    low = number & 0x7F
    return bytes([low]) if number < 0x80 else bytes([low | 0x80]) + _varint(number >> 7)


def _fields(message: bytes) -> Iterator[tuple[int, bytes]]:
    position = 0
    while position < len(message):
        key = message[position] >> 3
        size, shift = 0, 0
        while True:
            position += 1
            size |= (message[position] & 0x7F) << shift
            shift += 7
            if message[position] < 0x80:
                break
        position += 1
        yield key, message[position : position + size]
        position += size
