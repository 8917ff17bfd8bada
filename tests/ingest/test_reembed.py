"""A move to another embedder: the base answers all the time, and nothing is done twice."""

import json
import shutil
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from sqlalchemy import func, select

from ingest.fake import FakeEmbedder
from ingest.reembed import ReembedOptions, reembed
from ingest.splitter import SPLITTER
from ingest.sync import SyncOptions, sync_folders
from kb.cli.edge import Edge
from kb.cli.main import run
from kb.config import Settings
from kb.errors import CancelledError, EmbedderMovedError, VersionMismatchError
from kb.protocols import Vectors
from kb.records import KnowledgeBase, Question
from kb.storage.bases import find_base
from kb.storage.tables import EmbeddingRow
from kb.upkeep.verify import verify
from kb.wiring import Services
from tests.building import open_services
from tests.ingest.checkpoints import make_embedder

DIMENSION = 96


class WatchedEmbedder(FakeEmbedder):
    """Another fake, that lets a test do something whenever it embeds passages."""

    def __init__(self) -> None:
        super().__init__(DIMENSION)
        self.texts: list[str] = []
        self.meanwhile = lambda: None

    def embed_array(self, texts: Sequence[str]) -> Vectors:
        self.texts += texts
        self.meanwhile()
        return super().embed_array(texts)


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    with open_services(tmp_path / "home") as opened:
        yield opened


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "docs"
    made.mkdir()
    for n in range(6):
        (made / f"{n}.txt").write_text(f"The pump {n} needs oil every {n} hours. 每 {n} 天检查。")
    return made


@pytest.fixture
def base(services: Services, folder: Path) -> KnowledgeBase:
    made = services.create_base("halls")
    sync_folders(services.sync_parts, made, [folder], SyncOptions())
    return made


def now(services: Services, base: KnowledgeBase) -> KnowledgeBase:
    with services.database.read() as session:
        return find_base(session, base.id)


def problems(services: Services) -> list[str]:
    report = verify(services.database, services.retriever, services.blobs, splitter=SPLITTER)
    return [problem.detail for problem in report.problems] + list(report.leftovers)


def dense(services: Services, text: str = "The pump 3 needs oil every 3 hours") -> list[str]:
    found = services.retriever.search(Question(text, ("halls",), 5, "dense"))
    return [Path(hit.document).name for hit in found.hits]


def test_a_move_gives_every_chunk_a_vector_of_the_new_embedder(
    services: Services, base: KnowledgeBase
) -> None:
    before = dense(services)
    services.retriever.view(base).save()

    report = services.reembed(base, FakeEmbedder(DIMENSION), ReembedOptions())

    assert now(services, base).embedder.dimension == DIMENSION
    assert report.chunks == report.embedded == 6
    assert dense(services)[0] == before[0] == "3.txt"
    assert problems(services) == []
    with services.database.read() as session:
        assert session.scalar(select(func.count()).select_from(EmbeddingRow)) == 6


def test_it_answers_while_it_moves_and_another_process_sees_the_swap(
    services: Services, base: KnowledgeBase, tmp_path: Path
) -> None:
    with open_services(tmp_path / "home") as other:
        assert dense(other)[0] == "3.txt"
        embedder = WatchedEmbedder()
        seen: list[int] = []

        def search() -> None:
            assert dense(services)[0] == dense(other)[0] == "3.txt"
            seen.append(now(other, base).embedder.dimension)

        embedder.meanwhile = search
        services.reembed(base, embedder, ReembedOptions())

        assert set(seen) == {FakeEmbedder.spec.dimension}  # the old one until the swap
        assert dense(other)[0] == "3.txt"
        assert now(other, base).embedder.dimension == DIMENSION
        assert len(other.retriever.view(base).contents()[1][0]) == DIMENSION


def test_searches_never_fail_however_often_it_moves(
    services: Services, base: KnowledgeBase
) -> None:
    stopped = threading.Event()
    failures: list[Exception] = []
    counts: list[int] = []

    def search() -> None:
        while not stopped.is_set():
            try:
                counts.append(len(dense(services)))
            except Exception as exc:  # noqa: BLE001 - the test is that there is none
                failures.append(exc)

    threads = [threading.Thread(target=search) for _ in range(2)]
    for thread in threads:
        thread.start()
    for dimension in (96, 64, 32, 64) * 2:
        services.reembed(base, FakeEmbedder(dimension), ReembedOptions())
    stopped.set()
    for thread in threads:
        thread.join()

    assert not failures
    assert set(counts) == {5}


def test_a_vector_of_the_old_embedder_is_refused_after_the_swap(
    services: Services, base: KnowledgeBase
) -> None:
    view = services.retriever.view(base)
    old = FakeEmbedder().embed_array(["oil"])[0]
    assert view.search(old, 3, embedder_id=base.embedder_id)

    services.reembed(base, FakeEmbedder(DIMENSION), ReembedOptions())

    with pytest.raises(EmbedderMovedError):
        view.search(old, 3, embedder_id=base.embedder_id)


def test_a_resumed_move_embeds_nothing_twice(
    services: Services, base: KnowledgeBase, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ingest.reembed.STORED_VECTORS", 2)
    embedder = WatchedEmbedder()
    stop = ReembedOptions(is_cancelled=lambda: len(embedder.texts) >= 4)
    with pytest.raises(CancelledError):
        reembed(services.database, base, embedder, stop)
    assert now(services, base).embedder == base.embedder
    sync_folders(services.sync_parts, base, [folder], SyncOptions())  # sweeps, as at night

    report = services.reembed(base, embedder, ReembedOptions())

    assert report.embedded == 2
    assert len(embedder.texts) == len(set(embedder.texts)) == 6
    assert problems(services) == []


def test_documents_that_are_synced_meanwhile_are_caught_up_with(
    services: Services, base: KnowledgeBase, folder: Path
) -> None:
    embedder = WatchedEmbedder()

    def sync() -> None:
        embedder.meanwhile = lambda: None
        (folder / "new.txt").write_text("The crew has new valves.")
        (folder / "0.txt").unlink()
        job = SyncOptions(job_id="other", yes=True)
        sync_folders(services.sync_parts, base, [folder], job)

    embedder.meanwhile = sync
    services.reembed(base, embedder, ReembedOptions())

    assert dense(services, "The crew has new valves.")[0] == "new.txt"
    assert now(services, base).embedder.dimension == DIMENSION
    assert problems(services) == []


def test_a_sync_under_way_goes_on_with_the_new_embedder(
    services: Services, base: KnowledgeBase, folder: Path
) -> None:
    (folder / "new.txt").write_text("The crew has new valves.")
    (folder / "1.txt").write_text("Another text of the first pump.")
    moved: list[int] = []

    def move(_progress: object) -> None:
        if not moved:
            moved.append(1)
            services.reembed(base, FakeEmbedder(DIMENSION), ReembedOptions())

    report = sync_folders(
        services.sync_parts, base, [folder], SyncOptions(progress=move, prune=False)
    )

    assert moved
    assert (report.added, report.changed, report.failed) == (1, 1, ())
    assert dense(services, "The crew has new valves.")[0] == "new.txt"
    assert problems(services) == []


def test_the_command_moves_between_two_real_checkpoints(
    tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home = tmp_path / "home"
    latin = make_embedder(tmp_path / "latin", dimension=16)
    both = make_embedder(home / "embedders" / "m3e-base", dimension=24, with_modules=False)
    settings = Settings(
        home=home,
        embedder=str(latin),
        embedder_scripts=("Latn",),
        threads=1,
        answerer="extractive",
    )
    with Services.open(settings) as services:
        edge = Edge({}, services)
        assert run(["ingest", str(folder), "--kb", "halls"], edge) == 0
        base = now_by_name(services)
        assert (base.embedder.name, base.embedder.scripts) == ("latin", {"Latn"})
        capsys.readouterr()

        assert run(["reembed", "--kb", "halls", "--embedder", "m3e-base", "--json"], edge) == 0

        told = json.loads(capsys.readouterr().out)
        assert (told["before"], told["after"], told["chunks"]) == ("latin", "m3e-base", 6)
        base = now_by_name(services)
        assert (base.embedder.dimension, base.embedder.scripts) == (24, {"Latn", "Hani"})
        assert len(dense(services)) == 5
        assert problems(services) == []
        assert run(["reembed", "--kb", "halls", "--embedder", str(both)], edge) == 0
        assert "already" in capsys.readouterr().out
        assert run(["model", "list", "--json"], edge) == 0
        rows = json.loads(capsys.readouterr().out)
        assert {row["name"] for row in rows} == {"all-MiniLM-L6-v2", "latin", "m3e-base"}
        assert run(["reembed", "--kb", "halls", "--embedder", "nowhere"], edge) == 1
        capsys.readouterr()

        assert run(["model", "remove", "m3e-base", "--yes"], edge) == 1
        assert "halls" in capsys.readouterr().err
        assert both.is_dir()
        assert run(["reembed", "--kb", "halls", "--embedder", str(latin)], edge) == 0
        assert run(["model", "remove", "m3e-base", "--yes"], edge) == 0
        assert not both.exists()


def test_a_base_whose_embedder_is_gone_answers_by_full_text_and_says_so(
    tmp_path: Path, folder: Path
) -> None:
    made = make_embedder(tmp_path / "latin")
    settings = Settings(
        home=tmp_path / "home", embedder=str(made), embedder_scripts=("Latn",), threads=1
    )
    with Services.open(settings) as services:
        assert run(["ingest", str(folder), "--kb", "halls"], Edge({}, services)) == 0
        base = now_by_name(services)
    shutil.rmtree(made)

    with Services.open(settings) as services:
        found = services.retriever.search(Question("pump 3 oil hours", ("halls",), 3))
        assert found.hits
        assert [notice.kind for notice in found.notices] == ["no_dense"]
        assert "kb reembed" in found.notices[0].detail
        with pytest.raises(VersionMismatchError, match="kb reembed"):
            sync_folders(services.sync_parts, base, [folder], SyncOptions())
        services.reembed(base, FakeEmbedder(), ReembedOptions())
        assert now_by_name(services).embedder == FakeEmbedder.spec


def now_by_name(services: Services) -> KnowledgeBase:
    with services.database.read() as session:
        return find_base(session, "halls")
