"""Language models installed in the data folder: which there are, and which one is in use.

    $KB_HOME/checkpoints/NAME/  a published checkpoint, fetched by `kb model pull`
    $KB_HOME/models/NAME/     one converted model, written by `kb model add`
    $KB_HOME/models/in-use    the name that `kb model use` chose
    $KB_HOME/embedders/NAME/  a published embedder, fetched by `kb model pull` (`ingest.installed`)

Only names and folders; what is in a folder is the business of `llm.store`.
"""

import os
import re
import shutil
from pathlib import Path

from kb.errors import InvalidInputError, KBError, ModelNotFoundError

FOLDER = "models"
CHECKPOINTS = "checkpoints"
EMBEDDERS = "embedders"
_IN_USE = "in-use"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def checkpoint_folder(home: Path, name: str) -> Path:
    """Return where a fetched checkpoint lives; ORG/NAME becomes one folder."""
    return home / CHECKPOINTS / name.replace("/", "--")


def model_folder(home: Path, name: str) -> Path:
    """Return where a model of this name lives, whether it exists or not.

    Raises:
        InvalidInputError: not a name.
    """
    if not _NAME.fullmatch(name) or name == _IN_USE:
        raise InvalidInputError(
            "name",
            f"{name!r} may hold up to 64 letters, digits, '.', '_' and '-'; `--name` gives another",
        )
    return home / FOLDER / name


def list_models(home: Path) -> list[str]:
    """Return the names of installed models, sorted."""
    folder = home / FOLDER
    if not folder.is_dir():
        return []
    found = (path.name for path in folder.iterdir() if path.is_dir())
    return sorted(name for name in found if _NAME.fullmatch(name) and name != _IN_USE)


def find_model(home: Path, name: str) -> Path:
    """Return the folder of an installed model.

    Raises:
        ModelNotFoundError: there is none of that name; which there are.
    """
    folder = model_folder(home, name)
    if not folder.is_dir():
        known = ", ".join(list_models(home))
        raise ModelNotFoundError(
            f"no model {name!r}; installed are: {known}"
            if known
            else f"no model {name!r}, and none is installed; run `kb model pull chatglm3-6b`"
        )
    return folder


def model_in_use(home: Path) -> str:
    """Return the name that was chosen, or "" if none was or it has gone."""
    try:
        name = (home / FOLDER / _IN_USE).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return ""
    return name if name in list_models(home) else ""


def use_model(home: Path, name: str) -> None:
    """Choose a model for answers, from the next start on.

    Raises:
        ModelNotFoundError
    """
    find_model(home, name)
    path = home / FOLDER / _IN_USE
    partial = path.with_name(f".{_IN_USE}.{os.getpid()}")
    try:
        partial.write_text(name + "\n", encoding="utf-8")
        partial.replace(path)
    except OSError as exc:
        partial.unlink(missing_ok=True)
        raise KBError(f"cannot write {str(path)!r}: {exc.strerror}") from exc


def remove_model(home: Path, name: str) -> None:
    """Delete a model's files; if it was in use, none is.

    Raises:
        ModelNotFoundError
    """
    folder = find_model(home, name)
    if model_in_use(home) == name:
        (home / FOLDER / _IN_USE).unlink(missing_ok=True)
    delete_folder(folder)


def delete_folder(folder: Path) -> None:
    """Delete what is installed in `folder`; of a link only the link."""
    if folder.is_symlink():  # somebody keeps it elsewhere: only the link is ours
        folder.unlink()
        return
    going = folder.with_name(f".{folder.name}.removed")  # vanishes from lists at once
    shutil.rmtree(going, ignore_errors=True)
    folder.rename(going)
    shutil.rmtree(going)
