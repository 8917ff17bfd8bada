"""Which files are nobody's documents: a short list of our own, and `.kbignore` files.

`.kbignore` has the syntax of `.gitignore` and works as there: in any folder, the nearest one that
says something wins, within one the last line wins, "!" brings back, and what lies in a folder
that is left out cannot be brought back. Patterns and names are compared in NFC. Our own list is
read as if it stood above the root, so that a `.kbignore` can bring those back too.

`pathspec` translates the patterns. Its `GitIgnoreSpec` judges a whole path at once, folders on the
way included, and gets "!*/" and "folder/**" wrong for folders; a walk asks about one name at a
time, so each pattern is asked here whether it means that name itself.
"""

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pathspec.patterns.gitignore.base import GitIgnorePatternError
from pathspec.patterns.gitignore.spec import GitIgnoreSpecPattern

from kb.errors import InvalidInputError

IGNORE_NAME = ".kbignore"

BUILT_IN = (
    ".*",  # hidden: .git, .DS_Store, LibreOffice's .~lock.x#, vim's .x.swp, Emacs' .#x
    *("~$*", r"\#*#", "*~"),  # a file open in Office or Emacs, editors' backup copies
    *("*.tmp", "*.TMP", "*.swp", "*.part", "*.crdownload"),  # half written
    *("Thumbs.db", "desktop.ini"),  # what Windows puts into folders
    # What programs fill and nobody reads: packages, caches, waste bins, repair and index folders.
    *("node_modules/", "__pycache__/", "__MACOSX/", "@eaDir/", "lost+found/"),
    *("$RECYCLE.BIN/", "System Volume Information/"),
)


@dataclass(frozen=True, slots=True)
class Rule:
    """One line of a `.kbignore`."""

    pattern: GitIgnoreSpecPattern
    is_for_folders: bool

    def means(self, path: str, is_folder: bool) -> bool:
        """Tell whether the line is about this very path, not about a folder above it."""
        if self.is_for_folders and not is_folder:
            return False
        found = self.pattern.match_file(path)
        # The only group in pathspec's expressions marks the end of a folder on the way.
        return found is not None and found.match.lastgroup is None


# The rules in force in a folder, the nearest file's first; the number is how many characters of a
# path from the root lead to the folder of that file.
Rules = tuple[tuple[int, tuple[Rule, ...]], ...]


def extend(rules: Rules, prefix: str, folder: Path) -> Rules:
    """Return the rules in force in `folder`, whose path is `prefix`, below a folder with `rules`.

    Raises:
        InvalidInputError: its `.kbignore` cannot be read or understood.
    """
    own = _read(folder / IGNORE_NAME)
    return ((len(prefix), own), *rules) if own else rules


def is_left_out(path: str, rules: Rules, *, is_folder: bool) -> bool:
    """Tell whether an entry is left out.

    Args:
        path: its path from the root, in NFC.
        rules: those in force in its folder.
        is_folder: a link to a folder is none.
    """
    name = path[path.rfind("/") + 1 :]
    if name == IGNORE_NAME:
        return True
    for offset, own in rules:
        verdict = _verdict(own, path[offset:], is_folder)
        if verdict is not None:
            return verdict
    return bool(_verdict(_BUILT_IN, name, is_folder))


def _verdict(rules: tuple[Rule, ...], path: str, is_folder: bool) -> bool | None:
    for rule in reversed(rules):
        if rule.means(path, is_folder):
            return rule.pattern.include
    return None


def _read(file: Path) -> tuple[Rule, ...]:
    try:
        if not file.is_file():  # nor a pipe, which would be waited for
            return ()
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except OSError as exc:
        raise InvalidInputError(str(file), f"cannot be read ({exc.strerror})") from exc
    except UnicodeDecodeError as exc:
        raise InvalidInputError(str(file), "is not UTF-8; save it in that encoding") from exc
    try:
        return _rules(lines)
    except GitIgnorePatternError as exc:
        raise InvalidInputError(str(file), f"holds a line that is no pattern ({exc})") from exc


def _rules(lines: Iterable[str]) -> tuple[Rule, ...]:
    rules = []
    for line in lines:
        text = unicodedata.normalize("NFC", line)
        if not text.endswith("\\ "):
            text = text.rstrip()
        is_for_folders = text.endswith("/")
        # Asked without its slash, since folders are asked about without theirs.
        pattern = GitIgnoreSpecPattern(text.removesuffix("/") if is_for_folders else text)
        if pattern.include is not None:
            rules.append(Rule(pattern, is_for_folders))
    return tuple(rules)


_BUILT_IN = _rules(BUILT_IN)
