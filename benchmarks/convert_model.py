"""Time and peak memory of converting a full-size checkpoint, with random weights.

    python -m benchmarks.convert_model TOKENIZER_MODEL [--shape chatglm3-6b] [--bits 4]

Writes a folder in the published layout (fp16 `.bin` shards of about 1.9 GB; 12.5 GB for
ChatGLM3-6B) into the temporary folder, converts it in a process of its own, prints JSON, and
removes everything. TOKENIZER_MODEL is the `tokenizer.model` of ChatGLM2 or 3.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from llm.config import ModelConfig
from llm.parameters import parameters
from llm.shapes import SHAPES

SHARD_BYTES = 1_900_000_000
CONVERT = """
import json, resource, sys, time
from pathlib import Path
from llm.convert import ConvertOptions, convert
started = time.perf_counter()
report = convert(Path(sys.argv[1]), Path(sys.argv[2]), ConvertOptions(bits=int(sys.argv[3])))
print(json.dumps({
    "seconds": round(time.perf_counter() - started, 1),
    "peak_memory_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
    "logits": report["logits"],
}))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tokenizer", type=Path)
    parser.add_argument("--shape", choices=["chatglm2-6b", "chatglm3-6b"], default="chatglm3-6b")
    parser.add_argument("--bits", choices=["4", "8", "16"], default="4")
    arguments = parser.parse_args()
    config = SHAPES[arguments.shape]
    root = Path(tempfile.mkdtemp(prefix="convert-"))
    try:
        source = root / arguments.shape
        source.mkdir()
        shutil.copyfile(arguments.tokenizer, source / "tokenizer.model")
        started = time.perf_counter()
        size_bytes = write_checkpoint(source, config)
        print(f"wrote {size_bytes / 1e9:.1f} GB in {time.perf_counter() - started:.0f} s",
              file=sys.stderr)  # fmt: skip
        done = subprocess.run(
            [sys.executable, "-c", CONVERT, str(source), str(root / "model"), arguments.bits],
            stdout=subprocess.PIPE,
            check=True,
            text=True,
        )
        target = root / "model"
        sizes = {path.name: round(path.stat().st_size / 1e9, 2) for path in target.iterdir()}
        figures = {"shape": arguments.shape, "bits": int(arguments.bits), **json.loads(done.stdout)}
        print(json.dumps({**figures, "files_gb": sizes}))
    finally:
        shutil.rmtree(root, ignore_errors=True)


def write_checkpoint(folder: Path, config: ModelConfig) -> int:
    """Write config.json and fp16 shards with an index; return the bytes of weights."""
    values = {
        "model_type": "chatglm",
        "_name_or_path": folder.name,
        "num_layers": config.n_layers,
        "hidden_size": config.hidden_size,
        "num_attention_heads": config.n_heads,
        "kv_channels": config.head_dim,
        "ffn_hidden_size": config.ffn_size,
        "padded_vocab_size": config.vocab_size,
        "seq_length": config.context_window,
        "layernorm_epsilon": config.norm_eps,
        "multi_query_attention": True,
        "multi_query_group_num": config.n_kv_heads,
        "add_qkv_bias": True,
        "add_bias_linear": False,
    }
    (folder / "config.json").write_text(json.dumps(values))
    generator = torch.Generator().manual_seed(1)
    shards: list[dict[str, torch.Tensor]] = [{}]
    size = total = 0
    weight_map: dict[str, str] = {}
    listed = list(parameters(config))
    for i, parameter in enumerate(listed):
        shape = parameter.shape
        if parameter.kind == "vector":
            tensor = (
                torch.ones(shape) if parameter.name.endswith("norm.weight") else torch.zeros(shape)
            )
        else:
            rows = torch.randn(min(64, shape[0]), shape[1], generator=generator) * 0.02
            tensor = rows.repeat(-(-shape[0] // len(rows)), 1)[: shape[0]]
        tensor = tensor.half().contiguous()
        shards[-1][parameter.published] = tensor
        weight_map[parameter.published] = f"pytorch_model-{len(shards):05}.bin"
        size += tensor.nbytes
        total += tensor.nbytes
        if size > SHARD_BYTES or i == len(listed) - 1:
            torch.save(shards[-1], folder / f"pytorch_model-{len(shards):05}.bin")
            shards[-1].clear()
            shards.append({})
            size = 0
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    return total


if __name__ == "__main__":
    main()
