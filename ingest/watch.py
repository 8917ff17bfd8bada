"""Watching: keep documents equal to folders by syncing those in which something changes.

    first sync ──> listen ──> a burst ends ──> sync the roots it touched ──> listen …
                      │
                      └─ every few seconds: are the roots still the same folders?

Events only say that a root is due; what has changed is found by the sync itself, so a lost event,
an editor that writes by renaming, or ten thousand files at once need no care here. Each folder is
listened to by itself, not as a tree: ignored folders and links cost nothing, and a new folder is
listened to before it is read, so nothing written into it is missed.
"""

import logging
import os
import stat
import time
from collections.abc import Callable, Collection, Generator, Sequence
from pathlib import Path

from ingest.ignore import IGNORE_NAME, is_left_out
from ingest.scan import walk
from kb.errors import ConfirmationNeededError, KBError, KnowledgeBaseDeletedError

logger = logging.getLogger(__name__)

# A sync starts when nothing has changed for this long: a copied folder is one burst, and a saved
# file can be found a few seconds later.
QUIET_MS = 1_000
# … or when changes have gone on for this long: a log that grows all day is not waited for.
MAX_DELAY_MS = 30_000
# How often the roots themselves are looked at: a disk that goes or comes back tells no one.
LOOK_MS = 1_000
# All roots are synced at least this often: network disks do not tell of other machines' changes.
SYNC_EVERY_S = 600.0
# How soon after a failure (a full disk, say) all roots are synced again.
RETRY_S = 60.0
# How often folders are read where they cannot be listened to.
POLL_MS = 10_000

# Given folders, yields the paths that changed, burst by burst, and nothing every `LOOK_MS`. Its
# first batch, empty or not, says that it listens.
Batches = Generator[Collection[str], None, None]
Listen = Callable[[Sequence[str]], Batches]


def watch(
    roots: Sequence[Path],
    sync: Callable[[Sequence[Path]], None],
    *,
    warn: Callable[[str], None],
    listen: Listen | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Sync all roots, then for ever those that change.

    The first sync fails as any other would; later failures, and always the guard against removing
    too much, are told and outlived.

    Args:
        roots: folders or files, absolute and resolved; they may go and come back.
        sync: makes the documents below some of `roots` equal to the files there.
        warn: shows the user one line.
        listen: how to learn of changes; by default from the operating system.
        clock: seconds.

    Raises:
        KBError: from the first sync; later only `KnowledgeBaseDeletedError`.
        KeyboardInterrupt: the usual end.
    """
    listen = listen or Listener(warn)
    told: dict[Path, str] = {}
    due = set(roots)
    is_first = True
    sync_all_at = clock()
    batches: Batches | None = None
    watched: Folders = frozenset()
    while True:
        folders = _folders(roots)
        is_behind = False
        if batches is None or folders != watched:
            fresh = listen([path for path, *_ in sorted(folders)])
            due |= _touched(roots, next(fresh, ()))
            if batches is not None:
                batches.close()
            batches, watched = fresh, folders
            # A folder may have come before its parent was listened to.
            is_behind = _folders(roots) != watched
        seen = {root: _identity(root) for root in roots}
        if due:
            is_done = _sync([root for root in roots if root in due], sync, warn, told, is_first)
            if not is_done or due == set(roots):
                sync_all_at = clock() + (SYNC_EVERY_S if is_done else RETRY_S)
            is_first = False
        due = set(roots) if is_behind else set()
        while not due:
            changed = next(batches, None)
            if changed is None or any(path in changed for path, *_ in watched):
                batches.close()
                batches = None  # a folder was removed, perhaps made again: listen anew
            due = _touched(roots, changed or ())
            due |= {root for root in roots if _identity(root) != seen[root]}
            if clock() >= sync_all_at:
                due = set(roots)
            if batches is None:
                break


def _sync(
    due: Sequence[Path],
    sync: Callable[[Sequence[Path]], None],
    warn: Callable[[str], None],
    told: dict[Path, str],
    is_first: bool,
) -> bool:
    """Sync; tell each root's trouble once. Returns False where it is worth trying again soon."""
    try:
        sync(due)
    except KnowledgeBaseDeletedError:
        raise
    except ConfirmationNeededError as exc:
        if len(due) > 1:  # one root's missing disk must not hold up the others
            done = [_sync([root], sync, warn, told, is_first) for root in due]
            return all(done)
        _tell(due, str(exc), warn, told)
        return True
    except KBError as exc:
        if is_first:
            raise
        _tell(due, str(exc), warn, told)
        return False
    except Exception as exc:  # whoever watches for weeks outlives a bug; the log has the traceback
        if is_first:
            raise
        logger.exception("a sync failed by a bug")
        _tell(due, f"internal error ({type(exc).__name__}); the watching goes on", warn, told)
        return False
    for root in due:
        told.pop(root, None)
    return True


def _tell(
    due: Sequence[Path], message: str, warn: Callable[[str], None], told: dict[Path, str]
) -> None:
    if any(told.get(root) != message for root in due):
        warn(message)
    told.update(dict.fromkeys(due, message))


# Folders to listen to by path, device and inode: a disk mounted over one makes it another.
Folders = frozenset[tuple[str, int, int]]


def _folders(roots: Sequence[Path]) -> Folders:
    found = set()
    for root in roots:
        if _is_open_folder(root):  # a single file is looked at: editors put a new one in its place
            found.add(_folder(root))
            try:
                for listing in walk(root, root):
                    if listing.error is None:
                        found.add(_folder(listing.location))
            except KBError:
                continue  # the sync says it better
    return frozenset(folder for folder in found if folder is not None)


def _folder(place: Path) -> tuple[str, int, int] | None:
    try:
        str(place).encode("utf-8")
        status = place.stat()
    except UnicodeEncodeError:
        return None  # its files are only reported
    except OSError:
        return None  # gone meanwhile
    return (str(place), status.st_dev, status.st_ino)


def _is_open_folder(place: Path) -> bool:
    try:
        return place.is_dir() and os.access(place, os.R_OK | os.X_OK)
    except OSError:
        return False


def _touched(roots: Sequence[Path], changed: Collection[str]) -> set[Path]:
    """Return the roots that hold a change, other than of files that no sync would look at."""
    due: set[Path] = set()
    for path in changed:
        name = os.path.basename(path)
        is_noise = name != IGNORE_NAME and is_left_out(name, (), is_folder=False)
        for root in roots:
            if path == str(root) or (path.startswith(f"{root}/") and not is_noise):
                due.add(root)
    return due


def _identity(root: Path) -> tuple[int, ...] | None:
    """Return what tells that a root is not the folder, or the file, that it was; None if away."""
    try:
        status = root.stat()
    except OSError:
        return None
    if stat.S_ISDIR(status.st_mode):
        return (status.st_dev, status.st_ino)
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


class Listener:
    """Listens through the operating system; reads folders instead where that is refused."""

    def __init__(self, warn: Callable[[str], None]) -> None:
        self._warn = warn
        self._is_polling: bool | None = None  # None lets watchfiles decide

    def __call__(self, folders: Sequence[str]) -> Batches:
        while not folders:
            yield ()
            time.sleep(LOOK_MS / 1000)
        try:
            yield from self._listen(folders)
        except (FileNotFoundError, PermissionError):  # one has gone or was closed meanwhile
            time.sleep(LOOK_MS / 1000)
        except (OSError, RuntimeError) as exc:  # watchfiles raises either, by the place
            if self._is_polling:
                raise
            logger.info("inotify refused: %s", exc)
            self._warn(
                f"the system does not let kb listen to {len(folders)} folders, so they are read "
                f"every {POLL_MS // 1000} s instead; to change that raise its limits, as root: "
                "sysctl fs.inotify.max_user_watches=1048576 fs.inotify.max_user_instances=1024"
            )
            self._is_polling = True
            yield set(folders)  # what changed meanwhile is unknown
            yield from self._listen(folders)

    def _listen(self, folders: Sequence[str]) -> Batches:
        import watchfiles

        for changes in watchfiles.watch(
            *folders,
            watch_filter=None,
            debounce=MAX_DELAY_MS,
            step=QUIET_MS,
            rust_timeout=LOOK_MS,
            yield_on_timeout=True,
            force_polling=self._is_polling,
            poll_delay_ms=POLL_MS,
            recursive=False,
            ignore_permission_denied=False,  # True would ignore every error, limits too
        ):
            yield {path for _, path in changes}
