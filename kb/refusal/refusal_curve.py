"""How well a number tells questions that can be answered from those that cannot.

Everything here takes the `support` of questions with an answer and of questions without one.
"""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

# Thresholds of a curve: steps of 0.02.
STEPS = 50


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """Shares in [0, 1] that a threshold refuses; None where there are no such questions."""

    threshold: float
    answerable_refused: float | None
    unanswerable_refused: float | None

    def to_list(self) -> list[Any]:
        return [self.threshold, self.answerable_refused, self.unanswerable_refused]


def auroc(answerable: Sequence[float], unanswerable: Sequence[float]) -> float | None:
    """Return the chance that an answerable question has more support than an unanswerable one.

    0.5 is what guessing gives; ties count half. None where one kind is missing.
    """
    if not answerable or not unanswerable:
        return None
    below = sorted(unanswerable)
    wins = 0.0
    for value in answerable:
        first = bisect_left(below, value)
        last = first
        while last < len(below) and below[last] == value:
            last += 1
        wins += first + (last - first) / 2
    return wins / (len(answerable) * len(unanswerable))


def curve(answerable: Sequence[float], unanswerable: Sequence[float]) -> list[CurvePoint]:
    """Return what each threshold from 0 to 1 would refuse."""
    kinds = (sorted(answerable), sorted(unanswerable))
    points = []
    for step in range(STEPS + 1):
        threshold = round(step / STEPS, 4)
        answerable_refused, unanswerable_refused = (
            round(bisect_left(values, threshold) / len(values), 4) if values else None
            for values in kinds
        )
        points.append(CurvePoint(threshold, answerable_refused, unanswerable_refused))
    return points
