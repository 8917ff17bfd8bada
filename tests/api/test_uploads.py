"""The multipart reader alone: however the body is cut, the same files come out of it."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.uploads import UploadReader, put_below
from kb.storage.blobs import Blobs
from kb.storage.jobs import JobFile

TYPE = "multipart/form-data; boundary=----cut-7f3a"
CONTENTS = {
    "docs/年假.md": "# 年假\n\n十五天。\r\n".encode(),
    "empty.txt": b"",
    "tricky.bin": b"\r\n------cut-7f3\r\n--\r\n\r\nContent-Disposition: x\r\n\r\n\x00\xff",
    "😀.txt": b"-" * 500,
}


@pytest.fixture(scope="module")
def blobs(tmp_path_factory: pytest.TempPathFactory) -> Blobs:
    """One folder for all examples of a property: each must leave it empty."""
    return Blobs(tmp_path_factory.mktemp("home"))


def body() -> bytes:
    return (
        b"".join(
            b'------cut-7f3a\r\nContent-Disposition: form-data; name="files"; filename="'
            + name.encode()
            + b'"\r\nContent-Type: text/plain\r\n\r\n'
            + content
            + b"\r\n"
            for name, content in CONTENTS.items()
        )
        + b"------cut-7f3a--\r\n"
    )


def read(blobs: Blobs, pieces: list[bytes]) -> dict[str, bytes]:
    reader = UploadReader(TYPE, blobs)
    try:
        for piece in pieces:
            reader.write(piece)
        reader.finish()
        received = [staged.path.read_bytes() for staged in reader.staged]
        return dict(zip([file.path for file in reader.files], received, strict=True))
    finally:
        reader.discard()


@given(st.lists(st.integers(0, len(body())), max_size=12))
def test_the_files_do_not_depend_on_how_the_body_is_cut(blobs: Blobs, cuts: list[int]) -> None:
    whole = body()
    places = [0, *sorted(cuts), len(whole)]
    pieces = [whole[a:b] for a, b in pairwise(places)]

    assert read(blobs, pieces) == CONTENTS
    assert list(blobs.folder.iterdir()) == []


def test_byte_by_byte_too(blobs: Blobs) -> None:
    whole = body()

    assert read(blobs, [whole[i : i + 1] for i in range(len(whole))]) == CONTENTS


def test_paths_are_put_below_a_root_all_or_none() -> None:
    def files(*paths: str) -> list[JobFile]:
        return [JobFile(path, "0" * 64, 1) for path in paths]

    assert put_below("docs", files("docs/a", "docs/b/c")) == files("docs/a", "docs/b/c")
    assert put_below("docs", files("a", "docs/a")) == files("docs/a", "docs/docs/a")
    assert put_below("docs", files("docsx/a")) == files("docs/docsx/a")
    assert put_below("", files("a", "b/c")) == files("a", "b/c")
