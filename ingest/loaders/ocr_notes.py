"""What the reader of a document is told of the pages that OCR read."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby

# Below it a page has an error every line or so; clean print is read with 0.97 and more.
_LOW = 0.85
_SHOWN = 20  # runs of pages in a note


def confidence_notes(confidences: Mapping[int, float]) -> Iterator[str]:
    """Name the pages (by index) that OCR read, with the mean confidence, and the doubtful ones."""
    if not confidences:
        return
    mean = sum(confidences.values()) / len(confidences)
    verb = "was" if len(confidences) == 1 else "were"
    yield f"{pages_named(list(confidences))} {verb} read by OCR, confidence {mean:.2f}"
    doubtful = {i: value for i, value in confidences.items() if value < _LOW}
    if doubtful:
        lowest = min(doubtful.values())
        verb = "is" if len(doubtful) == 1 else "are"
        yield (
            f"{pages_named(list(doubtful))} {verb} hard to read (confidence from {lowest:.2f}): "
            "compare the text with the original"
        )


def pages_named(indexes: Sequence[int]) -> str:
    """Return pages given by index from 0 as "page 2" or "pages 1-3, 7"."""
    # Neighbours differ from their rank by the same number.
    groups = groupby(enumerate(sorted(indexes)), key=lambda pair: pair[1] - pair[0])
    runs = [[index + 1 for _, index in group] for _, group in groups]
    shown = ", ".join(f"{r[0]}-{r[-1]}" if len(r) > 1 else str(r[0]) for r in runs[:_SHOWN])
    n_more = sum(len(run) for run in runs[_SHOWN:])
    more = f" and {n_more:,} more" if n_more else ""
    return f"page{'s' if len(indexes) > 1 else ''} {shown}{more}"
