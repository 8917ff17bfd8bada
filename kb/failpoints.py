"""Named places where a test can kill the process, as a power cut would.

A kill test arms one in a child process of its own; in normal use `failpoint` is one comparison.
"""

import os

# All of them, in the order of a document's life; a test compares the list with the code.
PLACES = (
    "migration.backed-up",
    "migration.upgrading",
    "migration.upgraded",
    "sync.moved",
    "sync.parsed",
    "sync.embedded",
    "sync.vectors-stored",
    "sync.writing",
    "sync.written",
    "sync.removing",
    "sync.sweeping",
    "move.stored",
    "move.swapping",
    "move.swapped",
    "index.written",
    "index.renamed",
    "index.named",
    "documents.removing",
    "documents.swept",
    "erase.removing",
    "erase.removed",
    "erase.optimized",
    "erase.indexed",
    "erase.vacuumed",
    "erase.emptied",
)

_armed: str | None = None
_passes_left = 0


def arm(name: str, passes: int = 0) -> None:
    """Make the process die at this failpoint after surviving it `passes` times.

    Raises:
        ValueError: there is no such place.
    """
    if name not in PLACES:
        raise ValueError(f"no failpoint {name!r}; there are {', '.join(PLACES)}")
    global _armed, _passes_left
    _armed, _passes_left = name, passes


def failpoint(name: str) -> None:
    """Kill this process here, without any clean-up, if this failpoint is armed."""
    global _passes_left
    if name != _armed:
        return
    if _passes_left > 0:
        _passes_left -= 1
        return
    os._exit(137)
