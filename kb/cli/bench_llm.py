"""`kb bench llm`: speed and memory of a published shape with random weights, on this machine."""

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kb.cli.edge import Edge, json_option, pass_edge, print_json
from kb.cli.machine import print_machine
from kb.errors import KBError

if TYPE_CHECKING:
    from llm.config import ModelConfig

# Measuring runs in a process of its own: its peak memory is the model's alone.
_MEASURE = """
import json, sys
from pathlib import Path
from llm.bench import measure
from llm.shapes import SHAPES
path, shape, context, prompts, kv_form = json.loads(sys.argv[1])
say = lambda what: print(what, file=sys.stderr, flush=True)
figures = measure(Path(path), SHAPES[shape], context=context, prompts=tuple(prompts),
                  kv_form=kv_form, progress=say)
print(json.dumps(figures))
"""


@click.command("llm", epilog="Example:  kb bench llm --shape chatglm3-6b --bits 4 --json")
@click.option(
    "--shape",
    type=click.Choice(["chatglm-6b", "chatglm2-6b", "chatglm3-6b", "glm-4-9b-chat"]),
    default="chatglm3-6b",
    show_default=True,
)
@click.option("--bits", type=click.Choice(["4", "8", "16"]), default="4", show_default=True)
@click.option(
    "--context",
    type=click.IntRange(64, 32768),
    default=1024,
    show_default=True,
    help="Tokens in the cache while decoding.",
)
@click.option(
    "--prompt",
    "prompts",
    type=click.IntRange(64, 32768),
    multiple=True,
    default=(512, 1024),
    show_default=True,
    help="Length of a prompt to prefill; may be given several times.",
)
@click.option("--kv", type=click.Choice(["model", "int8"]), default="model", show_default=True)
@json_option
@pass_edge
def bench_llm(
    edge: Edge,
    shape: str,
    bits: str,
    context: int,
    prompts: tuple[int, ...],
    kv: str,
    as_json: bool,
) -> None:
    """Measure loading, prefill and decoding of a full-size model with random weights.

    Writes weights of the shape into the data folder (8 GB for ChatGLM3-6B at 4 bits, plain and
    packed) and removes them afterwards. `bound_tokens_per_s` is what reading every weight once
    per token allows at the bandwidth measured in turns with decoding; `decode_ratio` is the share
    reached. `load_s` is warm: it includes the first token, not the disk.
    """
    from llm.bench import write_random_model
    from llm.shapes import SHAPES

    root = edge.settings.home / "bench"
    root.mkdir(parents=True, exist_ok=True)
    _check_room(root, SHAPES[shape], int(bits), max(context, *prompts))
    folder = Path(tempfile.mkdtemp(dir=root))
    try:
        click.echo("writing random weights", err=True)
        path = write_random_model(folder, SHAPES[shape], int(bits))
        task = json.dumps([str(path), shape, context, list(prompts), kv])
        done = subprocess.run(
            [sys.executable, "-c", _MEASURE, task], stdout=subprocess.PIPE, text=True, check=False
        )
        if done.returncode:
            raise KBError(f"measuring ended with status {done.returncode}; was memory short?")
        figures: dict[str, Any] = {"shape": shape, "bits": int(bits), **json.loads(done.stdout)}
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print_machine()
    if as_json:
        print_json(figures)
        return
    for name, value in figures.items():
        click.echo(f"{name:<30} {value}")


def _check_room(folder: Path, config: "ModelConfig", bits: int, n_tokens: int) -> None:
    """Refuse before writing what would fit neither on the disk nor into memory.

    Raises:
        KBError: with needed and free.
    """
    from llm.memory import available_bytes, needed_bytes, weights_bytes

    on_disk = weights_bytes(config, bits) * (2 if bits == 4 else 1)
    checks = (
        ("disk", on_disk, shutil.disk_usage(folder).free),
        ("memory", needed_bytes(config, bits, n_tokens), available_bytes()),
    )
    for what, needed, free in checks:
        if needed > free:
            raise KBError(
                f"this needs {needed / 1e9:.1f} GB of {what}, and {free / 1e9:.1f} GB are free"
            )
