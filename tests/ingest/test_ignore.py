"""`.kbignore` leaves out what `.gitignore` would, and our own list what nobody wrote."""

import os
import random
import shutil
import subprocess
from pathlib import Path

import pytest

from ingest.scan import scan
from kb.errors import InvalidInputError

NAMES = ("a", "b", "ab", "c.txt", "d.md", "keep")
PATTERNS = (
    *("a", "a/", "/a", "/a/", "*.txt", "*", "*/", "/*", "a/b", "a/*", "a/**", "**/b", "a/**/b"),
    *("a/b/", "ab?", "[ab]", "!a", "!*/", "!*.md", "!/a", "!a/b", "!keep", "!keep/", "!a/keep"),
    *("**/keep/", "!a/**", "a/**/", "#x", "", "a ", "!a/", "!/a/", "**", "!**/", r"\!a", "b*/"),
    *("!b/c.txt", "/b/*", "!/b/keep", "[", "/", "!c.txt", "keep/*", "!keep/d.md"),
)


def _make_tree(folder: Path, rng: random.Random, depth: int = 0) -> None:
    for name in rng.sample(NAMES, rng.randint(2, 5)):
        if depth < 3 and "." not in name and rng.random() < 0.75:
            (folder / name).mkdir()
            _make_tree(folder / name, rng, depth + 1)
        else:
            (folder / name).write_text("x")
    if depth == 0 or rng.random() < 0.3:
        lines = "\n".join(rng.choice(PATTERNS) for _ in range(rng.randint(1, 5)))
        (folder / ".gitignore").write_text(lines)
        (folder / ".kbignore").write_text(lines)


def _paths(root: Path) -> list[str]:
    return [file.path for file in scan(root, root).files]


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git to compare with")
def test_rules_in_any_folder_mean_what_they_mean_to_git(tmp_path: Path) -> None:
    rng = random.Random(11)
    for n in range(40):
        root = tmp_path / str(n)
        root.mkdir()
        _make_tree(root, rng)
        subprocess.run(["git", "init", "-q", root], check=True)
        listed = subprocess.run(
            ["git", "-C", root, "ls-files", "-o", "--exclude-per-directory=.gitignore", "-z"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split("\0")

        expected = sorted(path for path in listed if path and not path.endswith("ignore"))

        # Only git keeps its own folder to itself where "!**/" brings hidden ones back.
        kept = [path for path in _paths(root) if not path.startswith(".git")]
        assert kept == expected, [(str(file), file.read_text()) for file in root.rglob(".kbignore")]


def _write(root: Path, **files: str) -> None:
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text, encoding="utf-8")


@pytest.mark.parametrize(
    "name",
    [
        *(".x", "~$x.docx", "x.tmp", ".#x", "x.swp", "Thumbs.db", "notes.txt~", "#x#", "a.part"),
        *(".git/config", "node_modules/p/readme.md", "__pycache__/x.txt", ".kbignore"),
    ],
)
def test_what_nobody_wrote_is_left_out(tmp_path: Path, name: str) -> None:
    _write(tmp_path, **{name: "x", "手册.md": "x"})

    assert _paths(tmp_path) == ["手册.md"]


def test_our_own_list_can_be_overruled_but_for_the_rules_themselves(tmp_path: Path) -> None:
    _write(tmp_path, **{".kbignore": "!.*\n!*.tmp\n", ".x/a.md": "x", "b.tmp": "x"})

    assert _paths(tmp_path) == [".x/a.md", "b.tmp"]


def test_patterns_and_names_are_compared_in_one_unicode_form(tmp_path: Path) -> None:
    _write(tmp_path, **{".kbignore": "\ufeffe\u0301/\n/\u8349\u7a3f*\n"})
    _write(tmp_path, **{"\u00e9/a.md": "x", "草稿1.md": "x", "sub/草稿1.md": "x"})

    assert _paths(tmp_path) == ["sub/草稿1.md"]


def test_rules_above_a_path_that_is_named_hold_for_it(tmp_path: Path) -> None:
    _write(tmp_path, **{".kbignore": "*.log\nold/\n", "sub/a.log": "x", "sub/b.md": "x"})
    _write(tmp_path, **{"old/c.md": "x"})

    assert [file.path for file in scan(tmp_path, tmp_path / "sub").files] == ["sub/b.md"]
    for place in ("old", "old/c.md", "sub/a.log"):
        with pytest.raises(InvalidInputError, match=r"left out.*\.kbignore"):
            scan(tmp_path, tmp_path / place)


def test_rules_that_cannot_be_read_stop_with_their_file(tmp_path: Path) -> None:
    _write(tmp_path, **{"sub/.kbignore": "!\n"})
    with pytest.raises(InvalidInputError, match=r"sub/\.kbignore.*no pattern"):
        scan(tmp_path, tmp_path)

    (tmp_path / "sub" / ".kbignore").write_bytes("草稿".encode("gb18030"))
    with pytest.raises(InvalidInputError, match="UTF-8"):
        scan(tmp_path, tmp_path)

    (tmp_path / "sub" / ".kbignore").unlink()
    os.mkfifo(tmp_path / "sub" / ".kbignore")
    assert _paths(tmp_path) == []
