"""Embedders in folders: real loading of tiny checkpoints that are made here."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ingest.embedder_names import KNOWN_EMBEDDERS
from ingest.installed import InstalledEmbedders
from kb.config import Settings, load_settings
from kb.embedder import Embedder
from kb.errors import ConfigError, EmbedderError
from tests.ingest.checkpoints import make_embedder

TEXTS = ["the pump is in the hall", "oil every 90 hours", "年假十天"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_embedder(tmp_path_factory.mktemp("published") / "tiny")


def embedders(home: Path, **settings: Any) -> InstalledEmbedders:
    return InstalledEmbedders(Settings(home=home, embedder_form="fp32", threads=1, **settings))


def asked(embedder: Embedder, text: str) -> np.ndarray:
    return np.asarray(embedder.embed_query(text), dtype=np.float32)


def test_a_folder_with_settings_of_its_own_gives_unit_vectors(
    tmp_path: Path, checkpoint: Path
) -> None:
    embedder = embedders(tmp_path, embedder=str(checkpoint), embedder_scripts=("Latn", "Hani"))

    rows = embedder.embed_array(TEXTS)

    assert rows.shape == (3, 16)
    assert (embedder.spec.name, embedder.spec.dimension) == ("tiny", 16)
    assert embedder.spec.scripts == {"Latn", "Hani"}
    assert np.linalg.norm(rows, axis=1) == pytest.approx(np.ones(3), abs=1e-5)
    assert asked(embedder, TEXTS[0]) == pytest.approx(rows[0], abs=1e-5)


def test_questions_and_passages_get_prefixes_of_their_own(tmp_path: Path, checkpoint: Path) -> None:
    scripts = ("Latn",)
    plain = embedders(tmp_path, embedder=str(checkpoint), embedder_scripts=scripts)
    prefixed = embedders(
        tmp_path,
        embedder=str(checkpoint),
        embedder_scripts=scripts,
        embedder_query_prefix="query: ",
        embedder_passage_prefix="passage: ",
    )

    query, passage = asked(prefixed, "pump oil"), prefixed.embed_array(["pump oil"])[0]

    assert query == pytest.approx(asked(plain, "query: pump oil"), abs=1e-5)
    assert passage == pytest.approx(plain.embed_array(["passage: pump oil"])[0], abs=1e-5)
    assert query @ passage < 0.999
    assert prefixed.spec.identity != plain.spec.identity


def test_a_folder_tells_its_own_prompts(tmp_path: Path) -> None:
    prompts = {"query": "query: ", "document": "passage: "}
    folder = make_embedder(tmp_path / "own", prompts=prompts)
    embedder = embedders(tmp_path / "home", embedder=str(folder), embedder_scripts=("Latn",))
    plain = embedders(
        tmp_path / "home",
        embedder=str(folder),
        embedder_scripts=("Latn",),
        embedder_query_prefix="",
        embedder_passage_prefix="",
    )

    assert asked(embedder, "oil") == pytest.approx(asked(plain, "query: oil"), abs=1e-5)
    assert embedder.embed_array(["oil"]) == pytest.approx(
        plain.embed_array(["passage: oil"]), abs=1e-5
    )


def test_a_pulled_embedder_is_known_by_its_name(tmp_path: Path) -> None:
    make_embedder(tmp_path / "embedders" / "bge-small-zh-v1.5", dimension=24, with_modules=False)
    embedder = embedders(tmp_path, embedder="bge-small-zh-v1.5")

    rows = embedder.embed_array(TEXTS)

    assert rows.shape == (3, 24)
    assert embedder.spec.scripts == {"Hani"}
    prefix = KNOWN_EMBEDDERS["bge-small-zh-v1.5"].query_prefix
    assert prefix.endswith("：")
    assert asked(embedder, "年假") == pytest.approx(
        embedder.embed_array([prefix + "年假"])[0], abs=1e-5
    )


def test_a_base_finds_its_embedder_by_identity_wherever_it_was_used(
    tmp_path: Path, checkpoint: Path
) -> None:
    folder = tmp_path / "tiny"
    shutil.copytree(checkpoint, folder)
    first = embedders(tmp_path / "home", embedder=str(folder), embedder_scripts=("Latn",))
    spec, rows = first.spec, first.embed_array(TEXTS)

    later = embedders(tmp_path / "home").matching(spec)  # the default is another by now

    assert later is not None
    assert later.embed_array(TEXTS) == pytest.approx(rows, abs=1e-5)
    moved = shutil.move(folder, tmp_path / "elsewhere")
    assert embedders(tmp_path / "home").matching(spec) is None
    again = embedders(tmp_path / "home", embedder=str(moved), embedder_scripts=("Latn",))
    assert again.matching(spec) is not None


def test_a_pulled_embedder_is_found_after_the_data_folder_has_moved(tmp_path: Path) -> None:
    make_embedder(tmp_path / "old" / "embedders" / "m3e-base", with_modules=False)
    spec = embedders(tmp_path / "old", embedder="m3e-base").spec
    (tmp_path / "old").rename(tmp_path / "new")

    assert embedders(tmp_path / "new").matching(spec) is not None


def test_other_weights_in_the_same_folder_are_another_embedder(tmp_path: Path) -> None:
    folder = make_embedder(tmp_path / "tiny", seed=3)
    settings = {"embedder": str(folder), "embedder_scripts": ("Latn",)}
    before = embedders(tmp_path / "home", **settings)
    spec = before.spec
    shutil.rmtree(folder)
    make_embedder(tmp_path / "new", seed=4).rename(folder)

    assert embedders(tmp_path / "home", **settings).matching(spec) is None
    with pytest.raises(EmbedderError, match="have changed"):
        before.embed_array(["oil"])


@pytest.mark.parametrize("name", ["gte-multilingual-base", "models/jina-embeddings-v2-base-zh"])
def test_embedders_that_need_code_of_their_own_are_refused_by_name(
    tmp_path: Path, name: str
) -> None:
    with pytest.raises(ConfigError, match="never run"):
        embedders(tmp_path).find(name)


def test_code_in_a_folder_is_never_run(tmp_path: Path, checkpoint: Path) -> None:
    ran = tmp_path / "ran"
    spy = f"open({str(ran)!r}, 'w')\nclass Mine: pass\n"
    modules = tmp_path / "modules"
    shutil.copytree(checkpoint, modules)
    (modules / "mine.py").write_text(spy)
    listed = json.loads((modules / "modules.json").read_text())
    listed[0]["type"] = "mine.Mine"
    (modules / "modules.json").write_text(json.dumps(listed))
    model = tmp_path / "model"
    shutil.copytree(checkpoint, model)
    (model / "mine.py").write_text(spy)
    config = json.loads((model / "config.json").read_text())
    config |= {"model_type": "mine", "auto_map": {"AutoModel": "mine.Mine"}}
    (model / "config.json").write_text(json.dumps(config))

    for folder in (modules, model):
        embedder = embedders(tmp_path / "h", embedder=str(folder), embedder_scripts=("Latn",))
        with pytest.raises(EmbedderError, match="never run"):
            embedder.embed_array(["oil"])
    assert not ran.exists()


def test_what_is_missing_is_said(tmp_path: Path, checkpoint: Path) -> None:
    with pytest.raises(ConfigError, match="kb model pull bge-m3"):
        embedders(tmp_path).find("bge-m3")
    with pytest.raises(ConfigError, match="KB_EMBEDDER_SCRIPTS"):
        embedders(tmp_path).find(str(checkpoint))
    bare = make_embedder(tmp_path / "bare", with_modules=False)
    with pytest.raises(ConfigError, match=r"modules\.json"):
        embedders(tmp_path).find(str(bare))
    (bare / "config.json").write_text("[", encoding="utf-8")
    with pytest.raises(EmbedderError, match="cannot be read"):
        embedders(tmp_path).find(str(bare))


def test_scripts_are_a_list_in_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KB_EMBEDDER_SCRIPTS", "Hani, Latn")
    settings, _ = load_settings({"home": tmp_path})
    assert settings.embedder_scripts == ("Hani", "Latn")

    monkeypatch.setenv("KB_EMBEDDER_SCRIPTS", "Chinese")
    with pytest.raises(ConfigError, match="ISO 15924"):
        load_settings({"home": tmp_path})
