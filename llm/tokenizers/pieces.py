"""Read a SentencePiece model, the vocabulary format of ChatGLM-6B, 2 and 3."""

from pathlib import Path

from sentencepiece import SentencePieceProcessor

from llm.errors import CheckpointError
from llm.tokenizers.base import read_tokenizer_file

_SPACE = "\u2581"  # how SentencePiece writes a space
# In no vocabulary, so it must come out as bytes.
_RARE_CHARACTER = "\U0010fffd"


def load_pieces(path: Path) -> SentencePieceProcessor:
    """Open the model file at `path`.

    Raises:
        CheckpointError: the file is missing, damaged, or something else.
    """
    content = read_tokenizer_file(path)
    try:
        pieces = SentencePieceProcessor(model_proto=content)
    except RuntimeError as exc:
        raise CheckpointError(
            f"{path} is damaged or no SentencePiece model; download it again, "
            "and check that it belongs to this model"
        ) from exc
    # The settings are at the end of the file: without them, or cut short before them, this fails.
    if pieces.unk_id() in pieces.encode(_RARE_CHARACTER):
        raise CheckpointError(
            f"{path} cannot spell rare characters, so it is cut short or not from a ChatGLM; "
            "download it again"
        )
    return pieces


def bytes_of_pieces(pieces: SentencePieceProcessor) -> list[bytes]:
    """Return what each id adds to a text; control tokens and the unknown token add nothing."""
    return [_bytes_of(pieces, token_id) for token_id in range(pieces.get_piece_size())]


def _bytes_of(pieces: SentencePieceProcessor, token_id: int) -> bytes:
    if pieces.is_control(token_id) or pieces.is_unknown(token_id):
        return b""
    piece = pieces.id_to_piece(token_id)
    if pieces.is_byte(token_id):
        return bytes([int(piece[3:5], 16)])  # spelled <0x0A>
    return piece.replace(_SPACE, " ").encode()
