"""Uploaded bytes: stored by content, kept while used, and never reached by a client's name."""

import hashlib
import os
from pathlib import Path

import pytest

from ingest.fake import FakeEmbedder
from kb.config import Settings
from kb.errors import StorageError
from kb.storage.blobs import STAGED_LIFETIME_S, Blobs, StagedBlob
from kb.storage.jobs import JobFile, create_job, finish_job
from kb.wiring import Services


@pytest.fixture
def blobs(home: Path) -> Blobs:
    return Blobs(home)


def put(blobs: Blobs, *contents: bytes) -> list[str]:
    staged = [receive(blobs, content) for content in contents]
    blobs.sync(staged)
    blobs.adopt(staged)
    return [blob.sha256 for blob in staged]


def receive(blobs: Blobs, content: bytes) -> StagedBlob:
    blob = blobs.stage()
    for first in range(0, len(content), 3):
        blob.write(content[first : first + 3])
    blob.finish()
    return blob


def test_bytes_are_stored_under_their_hash(blobs: Blobs) -> None:
    content = "年假十五天".encode()

    [sha256] = put(blobs, content)

    assert sha256 == hashlib.sha256(content).hexdigest()
    assert blobs.path(sha256).read_bytes() == content
    assert os.listdir(blobs.folder) == [sha256]


def test_the_same_bytes_are_stored_once(blobs: Blobs) -> None:
    first, second = put(blobs, b"same", b"same")

    assert first == second
    assert os.listdir(blobs.folder) == [first]


def test_what_is_not_adopted_leaves_nothing_behind(blobs: Blobs) -> None:
    with blobs.stage() as blob:
        blob.write(b"half a file")

    assert os.listdir(blobs.folder) == []


def test_leaving_the_block_keeps_what_was_adopted(blobs: Blobs) -> None:
    with blobs.stage() as blob:
        blob.write(b"whole")
        blob.finish()
        blobs.sync([blob])
        blobs.adopt([blob])

    assert blobs.path(blob.sha256).read_bytes() == b"whole"


@pytest.mark.skipif(os.name != "posix", reason="permissions are POSIX's")
def test_only_the_user_can_read_what_was_uploaded(blobs: Blobs) -> None:
    [sha256] = put(blobs, b"secret")

    assert blobs.path(sha256).stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("name", ["", "../kb.sqlite3", "a" * 63, "A" * 64, "a" * 64 + "\n", "/etc"])
def test_only_a_hash_is_a_name(blobs: Blobs, name: str) -> None:
    with pytest.raises(ValueError, match="not a SHA-256"):
        blobs.path(name)


def test_a_folder_that_cannot_be_written_is_a_clear_error(home: Path) -> None:
    (home / "blobs").write_text("a file where the folder should be")

    with pytest.raises(StorageError, match="cannot write"):
        Blobs(home).stage()


def test_staged_files_of_dead_uploads_are_removed(blobs: Blobs) -> None:
    dead, alive = blobs.stage(), blobs.stage()
    dead._file.close()
    old = os.stat(alive.path).st_mtime - STAGED_LIFETIME_S - 1
    os.utime(dead.path, (old, old))

    n_removed = blobs.drop_abandoned()

    assert n_removed == 1
    assert os.listdir(blobs.folder) == [alive.path.name]
    alive.discard()


@pytest.mark.parametrize("everything", [True, False])
def test_a_blob_goes_when_no_unfinished_job_and_no_document_uses_it(
    home: Path, everything: bool
) -> None:
    with Services.open(Settings(home=home), embedder=FakeEmbedder()) as services:
        base = services.create_base("one")
        waiting, finished, nobody = put(services.blobs, b"waiting", b"finished", b"nobody")
        with services.database.write() as session:
            create_job(session, base.id, "upload", files=[JobFile("a", waiting, 7)])
            done = create_job(
                session, base.id, "upload", files=[JobFile("b", finished, 8)], owner="me"
            )
            finish_job(session, done.id, "me", state="done")
        candidates = None if everything else [waiting, finished, nobody]

        with services.database.write() as session:
            n_removed = services.blobs.drop_unused(session, candidates)

        assert n_removed == 2
        assert os.listdir(services.blobs.folder) == [waiting]


def test_only_candidates_are_looked_at(home: Path) -> None:
    with Services.open(Settings(home=home), embedder=FakeEmbedder()) as services:
        first, second = put(services.blobs, b"first", b"second")

        with services.database.write() as session:
            services.blobs.drop_unused(session, [first, "0" * 64])

        assert os.listdir(services.blobs.folder) == [second]
