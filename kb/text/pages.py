"""Which page an offset is on."""

import bisect
from collections.abc import Sequence


def page_at(pages: Sequence[int], offset: int) -> int | None:
    """Return the 1-based page that holds `offset`; None where the document has no pages."""
    return max(1, bisect.bisect_right(pages, offset)) if pages else None
