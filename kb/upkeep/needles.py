"""Short strings cut from what is to be erased, and the search for them in the bytes of files.

A needle proves something only if it stands nowhere else: whoever chooses them drops those that
other documents hold as well. Compressed and encrypted bytes cannot be searched this way.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

_T = TypeVar("_T")

# Needles are found by their first eight bytes, read as one number.
WORD_BYTES = 8
# Long enough that chance does not repeat them, short enough that few lie across two pages of
# SQLite's file, where a search of bytes would miss them.
NEEDLE_BYTES = 16
# A needle of dashes, zeros or spaces stands in many files.
_MIN_DISTINCT = 5
_BLOCK_BYTES = 8 * 2**20
_HASH_BITS = 20
_HASH_FACTOR = np.uint64(0x9E3779B97F4A7C15)  # 2**64 / golden ratio: spreads neighbours


class Finder:
    """Finds any of many byte strings in one pass, however many they are.

    Eight views of the data, each one byte further on, hold every word of eight bytes; a table of
    hashed first words tells which places are worth a comparison (after Rabin and Karp, 1987).
    """

    def __init__(self, patterns: Iterable[bytes]) -> None:
        """Take patterns of at least `WORD_BYTES` bytes.

        Raises:
            ValueError: one is shorter.
        """
        self._by_word: defaultdict[int, list[bytes]] = defaultdict(list)
        for pattern in dict.fromkeys(patterns):
            if len(pattern) < WORD_BYTES:
                raise ValueError(f"a pattern of {len(pattern)} bytes is too short")
            self._by_word[int.from_bytes(pattern[:WORD_BYTES], "little")].append(pattern)
        self._words = np.array(sorted(self._by_word), dtype=np.uint64)
        self._table = np.zeros(1 << _HASH_BITS, dtype=bool)
        self._table[_hashed(self._words)] = True
        self._longest = max((len(p) for ps in self._by_word.values() for p in ps), default=0)

    def find(self, data: bytes) -> dict[bytes, int]:
        """Return where each pattern that occurs stands first."""
        found: dict[bytes, int] = {}
        if not self._by_word:
            return found
        for shift in range(WORD_BYTES):
            count = (len(data) - shift) // WORD_BYTES
            if count < 1:
                break
            words = np.frombuffer(data, dtype="<u8", count=count, offset=shift)
            places = np.flatnonzero(self._table[_hashed(words)])
            places = places[np.isin(words[places], self._words)]
            for place in places.tolist():
                start = shift + place * WORD_BYTES
                for pattern in self._by_word[int(words[place])]:
                    if data.startswith(pattern, start):
                        found[pattern] = min(start, found.get(pattern, start))
        return found

    def find_in_file(self, path: Path) -> dict[bytes, int]:
        """Return where in a file each pattern that occurs stands first; memory stays flat.

        Raises:
            OSError: the file cannot be read.
        """
        found: dict[bytes, int] = {}
        with path.open("rb") as file:
            start, tail = 0, b""
            while block := file.read(_BLOCK_BYTES):
                data = tail + block
                for pattern, place in self.find(data).items():
                    found.setdefault(pattern, start - len(tail) + place)
                start += len(block)
                tail = data[-(self._longest - 1) :] if self._longest > 1 else b""
        return found

    def find_in_all(self, pieces: Iterable[bytes]) -> set[bytes]:
        """Return the patterns that occur in any of many small pieces, never across two."""
        found: set[bytes] = set()
        batch: list[bytes] = []
        size = 0
        for piece in pieces:
            batch.append(piece)
            size += len(piece)
            if size >= _BLOCK_BYTES:
                found |= self.find(_SEPARATOR.join(batch)).keys()
                batch, size = [], 0
        return found | self.find(_SEPARATOR.join(batch)).keys()


# No needle holds zeros of this length, so none is found where two pieces meet.
_SEPARATOR = b"\0" * WORD_BYTES


def _hashed(words: "np.typing.NDArray[np.uint64]") -> "np.typing.NDArray[np.uint64]":
    hashed: np.typing.NDArray[np.uint64] = (words * _HASH_FACTOR) >> np.uint64(64 - _HASH_BITS)
    return hashed


def spread(text: str, wanted: int) -> list[str]:
    """Cut up to `wanted` strings of about `NEEDLE_BYTES` bytes from all over `text`.

    They do not overlap; those that say too little (rulers, rows of zeros) are left out.
    """
    step = max(len(text) // wanted, 1) if wanted else 1
    found: list[str] = []
    end = 0
    for first in range(0, len(text), step):
        if first < end:
            continue
        needle = _cut(text, first)
        if len({c for c in needle if c.isalnum()}) >= _MIN_DISTINCT:
            found.append(needle)
            end = first + len(needle)
    return list(dict.fromkeys(found))[:wanted]


def _cut(text: str, first: int) -> str:
    """Return the shortest piece of `text` from `first` on with `NEEDLE_BYTES` bytes; "" at its end.

    Between 16 and 19 bytes of UTF-8, since a character has at most four.
    """
    size = 0
    for end in range(first, len(text)):
        size += len(text[end].encode("utf-8", "surrogatepass"))
        if size >= NEEDLE_BYTES:
            return text[first : end + 1]
    return ""


def forms(needle: str, encoding: str | None = None) -> Iterator[tuple[str, bytes]]:
    """Give the byte forms in which a string may be stored, with their names.

    UTF-8 is SQLite's, JSON with escapes that of columns that hold lists; UTF-16 and the file's own
    `encoding` are those of source files.
    """
    yield "UTF-8", needle.encode("utf-8", "surrogatepass")
    yield "JSON", json.dumps(needle)[1:-1].encode()
    yield "UTF-16-LE", needle.encode("utf-16-le", "surrogatepass")
    yield "UTF-16-BE", needle.encode("utf-16-be", "surrogatepass")
    if encoding:
        try:
            yield encoding, needle.encode(encoding)
        except (UnicodeEncodeError, LookupError):
            return  # the loader changed characters (wide forms, say) that the encoding lacks


def telling_slice(vector: bytes, size: int = 48) -> bytes:
    """Return the `size` bytes of a stored vector that say most; all of a shorter one."""
    slices = [vector[i : i + size] for i in range(0, max(len(vector) - size, 0) + 1, size)]
    return max(slices, key=lambda piece: len(set(piece)))


def is_telling(pattern: bytes) -> bool:
    """Tell whether bytes differ enough among themselves to be searched for."""
    return len(pattern) >= WORD_BYTES and len(set(pattern)) >= _MIN_DISTINCT


def chosen(candidates: Sequence[_T], wanted: int) -> list[_T]:
    """Return `wanted` of the candidates, spread over their order."""
    if len(candidates) <= wanted:
        return list(candidates)
    return [candidates[i * len(candidates) // wanted] for i in range(wanted)]
