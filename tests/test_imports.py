"""The layout's rules: who may import whom, where heavy libraries live, what stays fast.

Everything but the last tests reads the source as syntax trees, so a rule holds for imports at
the top of a file and for those inside functions alike. Only cycles are judged by what happens
when a module is loaded: an import inside a function cannot close one.
"""

import ast
import functools
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from ingest.fake import FakeEmbedder
from ingest.sync import SyncOptions, sync_folders
from kb.config import Settings
from kb.wiring import Services

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("api", "ingest", "kb", "llm", "webui")

# kb/ is the domain; these are its edge, which ties everything together.
EDGE = ("kb.cli", "kb.wiring")

# Who may import what of ours. The edge and the packages above it are judged by other tests.
MAY_IMPORT = {
    "llm": ("llm",),
    "kb": ("kb",),
    "ingest": ("kb", "ingest"),
    "api": ("kb", "ingest", "llm", "api", "webui"),
    "webui": (),
}

MAY_IMPORT_WIRING = ("kb/cli/", "kb/wiring.py", "api/app.py", "tests/", "benchmarks/", "examples/")

# The second hands a short list of variables down to its child process; it reads no setting.
MAY_READ_ENVIRONMENT = ("kb/config.py", "ingest/parser_process.py")

# Heavy or replaceable libraries, and the only files or folders that may know them.
HOMES = {
    "torch": ("llm/", "ingest/embedder.py", "kb/retrieval/reranker.py"),
    "transformers": ("llm/", "ingest/embedder.py", "kb/retrieval/reranker.py"),
    "sentence_transformers": ("llm/", "ingest/embedder.py", "kb/retrieval/reranker.py"),
    "faiss": ("kb/retrieval/index.py",),
    "fastapi": ("api/",),
    "starlette": ("api/",),
    "unstructured": ("ingest/loaders/",),
}


@dataclass(frozen=True, slots=True)
class Import:
    """One import: `file` is relative to the root, `target` a dotted name."""

    file: str
    line: int
    target: str
    is_top_level: bool


def source_files(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@functools.cache
def imports_of(path: Path) -> tuple[Import, ...]:
    """Return each import of a file; ``from a import b`` counts as ``a.b``.

    Imports for type checkers only do not run, but still are knowledge: they count as not top
    level.
    """
    return tuple(_imports_of(path))


def _imports_of(path: Path) -> Iterator[Import]:
    file = path.relative_to(ROOT).as_posix()
    stack: list[tuple[ast.AST, bool]] = [(parse(path), True)]
    while stack:
        node, is_top = stack.pop()
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(file, node.lineno, alias.name, is_top)
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                yield Import(file, node.lineno, f"{node.module}.{alias.name}", is_top)
        defers = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) or (
            isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        )
        stack.extend((child, is_top and not defers) for child in ast.iter_child_nodes(node))


def is_in(name: str, parents: tuple[str, ...]) -> bool:
    return any(name == parent or name.startswith(parent + ".") for parent in parents)


def imports_everywhere() -> list[Import]:
    return [one for path in source_files(*PACKAGES) for one in imports_of(path)]


def spell(offenders: list[Import]) -> str:
    return "\n".join(f"{one.file}:{one.line} imports {one.target}" for one in offenders)


def test_the_rules_look_at_every_package() -> None:
    packages_seen = {one.file.split("/")[0] for one in imports_everywhere()}

    assert {"kb", "ingest", "api"} <= packages_seen


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_a_package_imports_only_the_packages_below_it(package: str) -> None:
    offenders = [
        one
        for path in source_files(package)
        if not is_in(module_name(path), EDGE)
        for one in imports_of(path)
        if is_in(one.target, PACKAGES)
        and (not is_in(one.target, MAY_IMPORT[package]) or is_in(one.target, ("kb.cli",)))
    ]

    assert not offenders, spell(offenders)


def test_only_the_edges_import_the_wiring() -> None:
    files = source_files(*PACKAGES, "tests", "benchmarks", "examples")
    offenders = [
        one
        for path in files
        for one in imports_of(path)
        if is_in(one.target, ("kb.wiring",)) and not one.file.startswith(MAY_IMPORT_WIRING)
    ]

    assert not offenders, spell(offenders)


@pytest.mark.parametrize("library", HOMES)
def test_a_heavy_library_is_known_in_its_home_only(library: str) -> None:
    offenders = [
        one
        for one in imports_everywhere()
        if is_in(one.target, (library,)) and not one.file.startswith(HOMES[library])
    ]

    assert not offenders, spell(offenders)


def test_loading_modules_forms_no_cycle() -> None:
    modules = {module_name(path): path for path in source_files(*PACKAGES)}
    graph = {
        name: {
            target
            for one in imports_of(path)
            if one.is_top_level
            # ``from a import b`` names the module a.b, or the module a and something in it.
            for target in (one.target, one.target.rpartition(".")[0])
            if target in modules and target != name
        }
        for name, path in modules.items()
    }
    # ``from a import b`` with a module a.b asks for a.b; the package a is loaded on the way.
    for name, targets in graph.items():
        graph[name] = {t for t in targets if not any(o.startswith(t + ".") for o in targets)}

    cycle = find_cycle(graph)

    assert cycle is None, " -> ".join(cycle or [])


def find_cycle(graph: dict[str, set[str]]) -> list[str] | None:
    """Return one cycle as a list that starts and ends with the same module, or None."""
    done: set[str] = set()
    trail: list[str] = []

    def visit(name: str) -> list[str] | None:
        if name in trail:
            return [*trail[trail.index(name) :], name]
        if name in done:
            return None
        trail.append(name)
        for target in sorted(graph[name]):
            if cycle := visit(target):
                return cycle
        trail.pop()
        done.add(name)
        return None

    return next((cycle for name in sorted(graph) if (cycle := visit(name))), None)


def test_a_cycle_is_found_and_a_diamond_is_none() -> None:
    assert find_cycle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
    assert find_cycle({"a": {"b", "c"}, "b": {"d"}, "c": {"d"}, "d": set()}) is None


def test_only_the_settings_read_the_environment() -> None:
    offenders = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in source_files(*PACKAGES)
        if path.relative_to(ROOT).as_posix() not in MAY_READ_ENVIRONMENT
        for node in reads_of_the_environment(parse(path))
    ]

    assert not offenders, "\n".join(offenders)


def reads_of_the_environment(tree: ast.Module) -> Iterator[ast.Attribute | ast.ImportFrom]:
    """Yield uses of ``os.environ`` and ``os.getenv``.

    Setting a variable for a library that reads it when it is imported is no reading:
    ``os.environ["X"] = "1"``, ``os.environ.setdefault`` and ``os.environ.update`` pass.
    """
    passes: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store):
            passes.add(id(node.value))
        if isinstance(node, ast.Attribute) and node.attr in ("setdefault", "update"):
            passes.add(id(node.value))
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "os":
            if {alias.name for alias in node.names} & {"environ", "getenv"}:
                yield node
        elif (
            isinstance(node, ast.Attribute)
            and ast.unparse(node) in ("os.environ", "os.getenv")
            and id(node) not in passes
        ):
            yield node


def test_reading_the_environment_is_told_from_setting_it() -> None:
    reads = "import os\nos.getenv('A')\nos.environ['A']\nos.environ.get('A')\n"
    writes = "import os\nos.environ['A'] = '1'\nos.environ.setdefault('A', '1')\n"

    assert len(list(reads_of_the_environment(ast.parse(reads)))) == 3
    assert not list(reads_of_the_environment(ast.parse(writes)))


RUN_AND_LIST_MODULES = """
import sys
from kb.cli.main import main
sys.argv = ["kb", *sys.argv[1:]]
try:
    main()
except SystemExit as exc:
    status = exc.code or 0
else:
    status = 0
print("status", status, file=sys.stderr)
heavy = {"torch", "transformers", "unstructured"} & set(sys.modules)
print("heavy", *sorted(heavy), file=sys.stderr)
"""


def run_kb(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run ``kb`` in a process of its own that reports its heavy modules on stderr."""
    return subprocess.run(
        [sys.executable, "-c", RUN_AND_LIST_MODULES, *arguments],
        env=os.environ | {"KB_HOME": str(home)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )


@pytest.fixture(scope="module")
def filled_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder whose knowledge base `handbook` holds one document."""
    home = tmp_path_factory.mktemp("filled")
    note = tmp_path_factory.mktemp("notes") / "leave.txt"
    note.write_text("满五年的员工每年有十天年假。", encoding="utf-8")
    with Services.open(Settings(home=home), embedder=FakeEmbedder()) as services:
        base = services.create_base("handbook")
        sync_folders(services.sync_parts, base, [note], SyncOptions())
    return home


@pytest.mark.parametrize(
    ("arguments", "printed"),
    [
        (("--help",), "search"),
        (("list",), "handbook"),
        (("search", "年假", "--kb", "handbook", "--channel", "lexical"), "leave.txt"),
    ],
    ids=["help", "list", "search"],
)
def test_light_commands_load_no_model_library(
    filled_home: Path, arguments: tuple[str, ...], printed: str
) -> None:
    finished = run_kb(filled_home, *arguments)

    assert printed in finished.stdout
    assert finished.stderr.splitlines()[-2:] == ["status 0", "heavy"], finished.stderr
