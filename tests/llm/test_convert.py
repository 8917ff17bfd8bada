"""From published folders to models of ours: every generation, layout and kind of damage."""

import fcntl
import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from llm.config import Generation, read_config
from llm.convert import ConvertOptions, convert
from llm.engine import decode, prefill
from llm.errors import CheckpointError, LlmError, NotEnoughMemoryError, UnsupportedModelError
from llm.kv_cache import KVCache
from llm.model import Model
from llm.native import obstacle
from llm.packed import int4_layout, verify_layout
from llm.parameters import assemble
from llm.store import PACKED, WEIGHTS, check_memory, load_model, read_description
from llm.tensor_file import TensorFile
from tests.llm.checkpoints import official_dequantized, write_checkpoint

GENERATIONS: tuple[Generation, ...] = ("chatglm", "chatglm2", "chatglm3", "glm4")
PROMPT = [11, 40, 7, 300, 25, 19, 280, 33, 90, 3, 4, 250, 77, 31, 5, 6, 8, 120, 200, 201]


def logits(model: Model, prompt: list[int] = PROMPT) -> torch.Tensor:
    """Return the logits after the prompt and after each of a few more tokens."""
    cache = KVCache(model.config, 64, dtype=model.dtype)
    found = [prefill(model, prompt, cache)]
    found += [decode(model, token, cache) for token in (9, 60, 101)]
    return torch.stack(found)


def relative(found: torch.Tensor, true: torch.Tensor) -> float:
    return float((found - true).norm() / true.norm())


@pytest.mark.parametrize("generation", GENERATIONS)
@pytest.mark.parametrize(("form", "n_shards"), [("safetensors", 2), ("bin", 3), ("bin", 1)])
def test_a_published_folder_keeps_its_logits(
    tmp_path: Path, generation: Generation, form: str, n_shards: int
) -> None:
    config, values = write_checkpoint(tmp_path / "source", generation, form=form, n_shards=n_shards)
    exact = assemble(config, {k: v.float() for k, v in values.items()}.__getitem__,
                     dtype=torch.float32)  # fmt: skip
    expected = logits(exact)
    # random weights leave a small network little to average errors over: int4 costs much here
    for bits, bound in ((16, 0.02), (8, 0.05), (4, 0.5)):
        target = tmp_path / f"model{bits}"
        convert(tmp_path / "source", target, ConvertOptions(bits=bits))
        assert read_description(target).config == config
        plain = logits(load_model(target, dtype=torch.float32))  # the codes without the kernels
        assert relative(plain, expected) < bound
        assert relative(logits(load_model(target)), plain) < 0.03


@pytest.mark.parametrize("generation", ["chatglm", "chatglm2"])
def test_an_official_folder_with_the_default_options(
    tmp_path: Path, generation: Generation
) -> None:
    write_checkpoint(tmp_path / "source", generation, form="bin", n_shards=1, official_bits=4)
    report = convert(tmp_path / "source", tmp_path / "model")
    assert report["quantized_by"] == "publisher"
    assert read_description(tmp_path / "model").group_size == 0
    file = TensorFile(tmp_path / "model" / WEIGHTS)
    assert "head.codes4" in file  # the head, which its publisher left in fp16, by us
    assert file.tensor("layers.0.qkv.scales").shape[1] == 1
    plain = logits(load_model(tmp_path / "model", dtype=torch.float32))
    assert relative(logits(load_model(tmp_path / "model")), plain) < 0.03


@pytest.mark.parametrize("generation", ["chatglm", "chatglm2"])
@pytest.mark.parametrize("bits", [4, 8])
def test_official_codes_are_taken_over_exactly(
    tmp_path: Path, generation: Generation, bits: int
) -> None:
    # a width and weights (standard deviation 0.02) with which bf16 activations alone cost little
    wide = {"hidden_size": 512, "num_attention_heads": 8, "kv_channels": 64}
    config, values = write_checkpoint(
        tmp_path / "source", generation, form="bin", n_shards=1, official_bits=bits, scale=0.45,
        **wide,
    )  # fmt: skip
    convert(tmp_path / "source", tmp_path / "model",
            ConvertOptions(bits=bits, quantize_head=False))  # fmt: skip
    kept = {name: value.float() for name, value in values.items()}
    for name in kept:
        if name.rsplit(".", 1)[-1] in ("qkv", "attention_out", "ffn_in", "ffn_out"):
            kept[name] = official_dequantized(values[name], bits)
    # embedding and head are kept in bf16; the codes and scales are those of the publisher
    for name in ("embedding", "head"):
        kept[name] = values[name].bfloat16().float()
    expected = logits(assemble(config, kept.__getitem__, dtype=torch.float32))
    exact = load_model(tmp_path / "model", dtype=torch.float32)
    assert relative(logits(exact), expected) < 1e-5
    assert relative(logits(load_model(tmp_path / "model")), expected) < 1e-2


def test_official_codes_cannot_become_other_bits(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "source", "chatglm2", form="bin", official_bits=4)
    with pytest.raises(UnsupportedModelError, match="4 bits by its publisher"):
        convert(tmp_path / "source", tmp_path / "model", ConvertOptions(bits=8))
    assert not (tmp_path / "model").exists()


def test_group_sizes_and_int8_embedding(tmp_path: Path) -> None:
    config, values = write_checkpoint(tmp_path / "source")
    floats = {k: v.float() for k, v in values.items()}
    expected = logits(assemble(config, floats.__getitem__, dtype=torch.float32))
    errors = []
    for group_size in (32, 64):
        target = tmp_path / f"g{group_size}"
        options = ConvertOptions(group_size=group_size, embedding="int8")
        report = convert(tmp_path / "source", target, options)
        errors.append(relative(logits(load_model(target)), expected))
        assert report["group_size"] == group_size
        assert len(report["layers"]) == config.n_layers
        assert 0.02 < report["layers"][0]["qkv"] < 0.12
        assert 0 < report["logits"]["relative_error"] < 0.5
    assert max(errors) < 0.5


def test_the_packed_file_is_mapped_and_renewed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert verify_layout()
    write_checkpoint(tmp_path / "source")
    target = tmp_path / "model"
    convert(tmp_path / "source", target)
    expected = logits(load_model(target))
    written = (target / PACKED).stat().st_mtime_ns
    load_model(target)
    assert (target / PACKED).stat().st_mtime_ns == written
    assert not caplog.records

    # as if the file came from another machine
    octets = (target / PACKED).read_bytes()
    mark = b'\\"layout\\": \\"' + (int4_layout() or "").encode()
    assert mark in octets
    (target / PACKED).write_bytes(octets.replace(mark, mark[:-5] + b"other", 1))
    assert torch.equal(logits(load_model(target)), expected)
    assert "another machine" in caplog.text

    (target / PACKED).write_bytes(octets[:2000])
    assert torch.equal(logits(load_model(target)), expected)
    (target / PACKED).unlink()
    assert torch.equal(logits(load_model(target)), expected)


@pytest.mark.skipif(obstacle() is not None, reason=f"{obstacle()}")
def test_a_file_packed_for_torch_is_packed_for_our_kernels_once_and_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    write_checkpoint(tmp_path / "source")
    target = tmp_path / "model"
    found = {}
    for layout in ("torch", "tiles", "torch"):
        monkeypatch.setattr("llm.store.int4_layout", lambda layout=layout: layout)
        if not target.exists():
            monkeypatch.setattr("llm.convert.int4_layout", lambda: "torch")
            convert(tmp_path / "source", target)
        caplog.clear()
        for _ in range(2):
            model = load_model(target)
        assert len(caplog.records) == (0 if not found else 1)
        assert TensorFile(target / PACKED).metadata["layout"] == layout
        found[layout] = logits(model)
    assert relative(found["tiles"], found["torch"]) < 0.01


def test_avx2_has_another_layout_and_the_same_logits(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "source")
    target = tmp_path / "model"
    convert(tmp_path / "source", target)
    expected = logits(load_model(target))
    script = (
        "import sys, torch; sys.path.insert(0, '.')\n"
        "from pathlib import Path\n"
        "from llm.packed import find_block_rows, verify_layout\n"
        "from llm.store import load_model\n"
        "from tests.llm.test_convert import logits\n"
        "model = load_model(Path(sys.argv[1]))\n"
        "torch.save((find_block_rows(), verify_layout(), logits(model)), sys.argv[2])\n"
    )
    subprocess.run(
        [sys.executable, "-c", script, str(target), str(tmp_path / "out.pt")],
        env={**os.environ, "ATEN_CPU_CAPABILITY": "avx2"},
        cwd=Path(__file__).parents[2],
        check=True,
    )
    block_rows, is_verified, found = torch.load(tmp_path / "out.pt")
    assert is_verified
    assert block_rows == 32
    assert relative(found, expected) < 0.01


def test_damage_to_a_converted_model_is_named(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "source")
    target = tmp_path / "model"
    convert(tmp_path / "source", target)
    octets = bytearray((target / WEIGHTS).read_bytes())
    octets[-100] ^= 0xFF
    (target / WEIGHTS).write_bytes(octets)
    assert list(TensorFile(target / WEIGHTS).damaged()) == ["head.zeros"]
    (target / PACKED).unlink()
    with pytest.raises(CheckpointError, match=r"head\.zeros.*damaged"):
        load_model(target)


def _lfs_pointer(folder: Path) -> None:
    path = sorted(folder.glob("*.safetensors"))[0]
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 1\n")


def _missing_shard(folder: Path) -> None:
    sorted(folder.glob("*.safetensors"))[0].unlink()


def _truncated(folder: Path) -> None:
    path = sorted(folder.glob("*.safetensors"))[1]
    path.write_bytes(path.read_bytes()[:-1000])


def _index_outside(folder: Path) -> None:
    path = folder / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    index["weight_map"] = dict.fromkeys(index["weight_map"], "../../etc/passwd")
    path.write_text(json.dumps(index))


def _wrong_config(folder: Path) -> None:
    values = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(values | {"ffn_hidden_size": 128}))


def _more_layers(folder: Path) -> None:
    values = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(values | {"num_layers": 3}))


def _llama(folder: Path) -> None:
    values = {"model_type": "llama", "num_attention_heads": 4}
    (folder / "config.json").write_text(json.dumps(values))


def _no_config(folder: Path) -> None:
    (folder / "config.json").unlink()


def _no_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.model").unlink()


def _broken_json(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": "chatglm", ')


def _not_finite(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    path = sorted(folder.glob("*.safetensors"))[0]
    tensors = load_file(path)
    name = next(name for name in tensors if name.endswith("query_key_value.weight"))
    tensors[name][0, 0] = float("nan")
    save_file(tensors, path)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_lfs_pointer, "Git LFS pointer"),
        (_missing_shard, "files are missing: model-00001-of-00002"),
        (_truncated, "00002.*truncated or damaged"),
        (_index_outside, "outside its folder"),
        (_wrong_config, r"h_to_4h.*has the shape \(384, 128\).*should be \(256, 128\)"),
        (_more_layers, "lacks 7 tensors of a chatglm3 model with 3 layers"),
        (_llama, "type 'llama'; supported are ChatGLM-6B"),
        (_no_config, "no config.json"),
        (_no_tokenizer, "tokenizer.model"),
        (_broken_json, "cannot read .*config.json"),
        (_not_finite, "query_key_value.*not finite"),
    ],
)
def test_a_damaged_checkpoint_is_refused_with_its_reason(
    tmp_path: Path, damage: Any, message: str
) -> None:
    write_checkpoint(tmp_path / "source")
    damage(tmp_path / "source")
    with pytest.raises(LlmError, match=f"(?s){message}"):
        convert(tmp_path / "source", tmp_path / "model")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".model.lock", "source"]


class _Evil:
    def __reduce__(self) -> Any:
        return (os.system, ("touch /tmp/evil-checkpoint-ran",))


def test_pickled_code_is_refused(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "source", form="bin", n_shards=1)
    torch.save({"transformer.x": _Evil()}, tmp_path / "source" / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="have to run code"):
        convert(tmp_path / "source", tmp_path / "model")
    evil = pickle.dumps(_Evil(), protocol=2)
    (tmp_path / "source" / "pytorch_model.bin").write_bytes(evil)
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin"):
        convert(tmp_path / "source", tmp_path / "model")
    assert not Path("/tmp/evil-checkpoint-ran").exists()


def test_generations_are_told_apart(tmp_path: Path) -> None:
    for generation in GENERATIONS:
        folder = tmp_path / generation
        config, _ = write_checkpoint(folder, generation)
        assert config.generation == generation
        assert config.is_chat
    two = tmp_path / "chatglm2"
    assert read_config(two, "chatglm3").generation == "chatglm3"

    anonymous = tmp_path / "weights"
    write_checkpoint(anonymous, "chatglm2", _name_or_path="")
    assert read_config(anonymous).generation == "chatglm2"
    (anonymous / "tokenizer_config.json").write_text('{"chat_template": "x"}')
    assert read_config(anonymous).generation == "chatglm3"


def test_an_incomplete_form_beside_a_complete_one(tmp_path: Path) -> None:
    config, _ = write_checkpoint(tmp_path / "source", form="bin")
    write_checkpoint(tmp_path / "source", form="safetensors")
    _missing_shard(tmp_path / "source")
    torch.save({"optimizer": torch.zeros(3)}, tmp_path / "source" / "optimizer.bin")
    convert(tmp_path / "source", tmp_path / "model")
    assert read_description(tmp_path / "model").config == config


def test_two_processes_do_not_write_one_model(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "source")
    with (tmp_path / ".model.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(CheckpointError, match="by another process"):
            convert(tmp_path / "source", tmp_path / "model")
    convert(tmp_path / "source", tmp_path / "model")


@pytest.mark.parametrize(
    ("generation", "changes"),
    [
        ("chatglm3", {"multi_query_attention": False}),
        ("chatglm2", {"rmsnorm": False}),
        ("chatglm2", {"apply_residual_connection_post_layernorm": True}),
        ("chatglm", {"position_encoding_2d": False}),
        ("chatglm3", {"pre_seq_len": 128}),
    ],
)
def test_what_would_compute_something_else_is_refused(
    tmp_path: Path, generation: Generation, changes: dict[str, Any]
) -> None:
    with pytest.raises(UnsupportedModelError, match=next(iter(changes))):
        write_checkpoint(tmp_path / "source", generation, **changes)


def test_the_old_vocabulary_of_chatglm_6b(tmp_path: Path) -> None:
    config, _ = write_checkpoint(tmp_path / "source", "chatglm", vocab_size=150_528)
    assert config.id_offset == 20_000
    convert(tmp_path / "source", tmp_path / "model")
    assert torch.isfinite(logits(load_model(tmp_path / "model"), [20_010, 20_040, 20_007])).all()


def test_a_process_that_died_while_replacing_a_model_loses_neither(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "source")
    convert(tmp_path / "source", tmp_path / "model")
    (tmp_path / "model").rename(tmp_path / ".model.old")  # killed between the two renames
    (tmp_path / ".model.part").mkdir()
    (tmp_path / "source" / "config.json").rename(tmp_path / "config.json")
    with pytest.raises(CheckpointError):
        convert(tmp_path / "source", tmp_path / "model")
    (tmp_path / "config.json").rename(tmp_path / "source" / "config.json")
    convert(tmp_path / "source", tmp_path / "model")
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == [".model.lock", "model", "source"]


def test_no_room_is_said_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_checkpoint(tmp_path / "source")
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr("llm.convert.shutil.disk_usage", lambda path: usage)
    with pytest.raises(CheckpointError, match=r"needs about .* GB .* are free"):
        convert(tmp_path / "source", tmp_path / "model")


def test_rope_ratios(tmp_path: Path) -> None:
    two, _ = write_checkpoint(tmp_path / "a", "chatglm2", rope_ratio=16)
    assert (two.rope_base, two.rope_scale) == (10_000, 16)
    three, _ = write_checkpoint(tmp_path / "b", "chatglm3", rope_ratio=50)
    assert (three.rope_base, three.rope_scale) == (500_000, 1)


def test_too_little_memory_is_said_before_loading(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_checkpoint(tmp_path / "source", context=32768)
    convert(tmp_path / "source", tmp_path / "model")
    model = tmp_path / "model"
    monkeypatch.setattr("llm.store.available_bytes", lambda device: 2**30 + 2**24)
    check_memory(model, 1000)
    with pytest.raises(NotEnoughMemoryError, match=r"1\.0 GB are free; .*keys and values as int8"):
        check_memory(model, 32768)
    with pytest.raises(NotEnoughMemoryError, match=r"a context of [0-9,]+ tokens"):
        check_memory(model, 32768 * 4)
    monkeypatch.setattr("llm.store.available_bytes", lambda device: 2**20)
    with pytest.raises(NotEnoughMemoryError, match="no setting"):
        load_model(tmp_path / "model")
