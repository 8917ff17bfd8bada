"""Compare two runs of `kb eval`: which figures differ, and is that more than noise?

Where both runs hold the outcome of each question (`"details"`, stored by every run), the same
questions are compared in pairs: a bootstrap over questions gives the interval in which the
difference lies with 99 %. Else the interval of two independent shares is used, which is wider. A
figure is worse if its whole interval is. Deterministic parts that did not change differ by exactly
0, so a run that changes nothing never alarms. One rule is stricter: every citation must be valid,
so any loss there counts. Times are shown, not judged: a busy machine is no regression.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from kb.errors import InvalidInputError
from kb.refusal.refusal_curve import auroc

RESAMPLES = 2000
CONFIDENCE = 0.99
_NORMAL_QUANTILE = 2.576  # of 99 %, two-sided
# Figures that are judged, and whether more is better.
JUDGED: Mapping[str, bool] = {
    "recall@1": True,
    "recall@5": True,
    "recall@10": True,
    "mrr@10": True,
    "answer_em": True,
    "answer_f1": True,
    "answer_contains": True,
    "refusal_recall": True,
    "false_refusals": False,
    "auroc": True,
    "citation_valid": True,
    "citation_gold": True,
}
SHOWN = (*JUDGED, "refusal_precision", "ms_per_question_p50", "ms_per_question_p95")

Verdict = Literal["worse", "better", "same", "not judged"]


@dataclass(frozen=True, slots=True)
class Difference:
    """One figure of one set in two runs; `low` and `high` bound the difference ``after - before``.

    They are None where nothing is judged.
    """

    set_name: str
    figure: str
    before: float
    after: float
    low: float | None
    high: float | None
    verdict: Verdict

    def to_dict(self) -> dict[str, Any]:
        return {
            "set": self.set_name,
            "figure": self.figure,
            "before": self.before,
            "after": self.after,
            "low": self.low,
            "high": self.high,
            "verdict": self.verdict,
        }


def read_run(path: Path) -> dict[str, Any]:
    """Return the sets of a stored ``kb eval --json``.

    Raises:
        InvalidInputError: the file is none.
    """
    try:
        stored = json.loads(path.read_text("utf-8"))
        sets = stored["sets"]
        if not all(isinstance(measured, dict) for measured in sets.values()):
            raise TypeError("a set is no object")
    except OSError as exc:
        raise InvalidInputError("--compare", f"cannot read {str(path)!r} ({exc.strerror})") from exc
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as exc:
        raise InvalidInputError(
            "--compare", f"{str(path)!r} is no output of `kb eval --json`"
        ) from exc
    return dict(sets)


def compare(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Difference]:
    """Return the difference of every figure that both runs have, by set and figure.

    Raises:
        InvalidInputError: they have no set in common, so that nothing would be compared, or the
            stored run is not of the form that `kb eval` writes.
    """
    if not set(before) & set(after):
        raise InvalidInputError(
            "--compare",
            f"the stored run has none of these sets ({', '.join(after)}), only {', '.join(before)}",
        )
    found = []
    for name in after:
        if name not in before:
            continue
        for figure in SHOWN:
            values = before[name].get(figure), after[name].get(figure)
            if not all(isinstance(value, int | float) for value in values):
                continue
            try:
                found.append(_difference(name, figure, before[name], after[name]))
            except (KeyError, ValueError, TypeError, AttributeError, IndexError) as exc:
                raise InvalidInputError(
                    "--compare", f"the stored run has no outcomes of {name!r} that can be compared"
                ) from exc
    return found


def _difference(
    name: str, figure: str, before: Mapping[str, Any], after: Mapping[str, Any]
) -> Difference:
    old, new = float(before[figure]), float(after[figure])
    if figure not in JUDGED:
        return Difference(name, figure, old, new, None, None, "not judged")
    pairs = _pairs(figure, before.get("details"), after.get("details"))
    if pairs is None:
        low, high = _unpaired(old, new, int(before["questions"]), int(after["questions"]))
    elif figure == "auroc":
        low, high = _auroc_interval(*pairs)
    else:
        low, high = _interval(pairs[1] - pairs[0])
    if not JUDGED[figure]:
        is_worse, is_better = low > 0, high < 0
    else:
        is_worse, is_better = high < 0, low > 0
    if figure == "citation_valid" and new < old:
        is_worse = True
    verdict: Verdict = "worse" if is_worse else "better" if is_better else "same"
    return Difference(name, figure, old, new, round(low, 4), round(high, 4), verdict)


def _pairs(
    figure: str,
    before: Mapping[str, Sequence[Any]] | None,
    after: Mapping[str, Sequence[Any]] | None,
) -> "tuple[Any, ...] | None":
    """Return both runs' values of the same questions as arrays, in one order.

    For `auroc` supports and, third, which questions can be answered. None where the runs do not
    hold the same questions.
    """
    if not before or not after:
        return None
    column = "support" if figure == "auroc" else figure
    if any(key not in run for run in (before, after) for key in ("qid", "answerable", column)):
        return None
    place = {qid: i for i, qid in enumerate(before["qid"])}
    if set(place) != set(after["qid"]):
        return None
    rows = [
        (before[column][place[qid]], value, answerable)
        for qid, value, answerable in zip(
            after["qid"], after[column], after["answerable"], strict=True
        )
    ]
    # A question that only one run answered has no citations to compare.
    kept = [row for row in rows if row[0] is not None and row[1] is not None]
    if not kept:
        return None
    return tuple(np.array(values, dtype=float) for values in zip(*kept, strict=True))


def _interval(differences: Any) -> tuple[float, float]:
    """Return the bootstrap interval of a mean."""
    if not np.any(differences):
        return 0.0, 0.0
    rng = np.random.default_rng(0)
    drawn = rng.integers(0, len(differences), size=(RESAMPLES, len(differences)))
    return _bounds(differences[drawn].mean(axis=1))


def _auroc_interval(before: Any, after: Any, answerable: Any) -> tuple[float, float]:
    """Return the bootstrap interval of a difference of two AUROCs, resampling both kinds."""
    if np.array_equal(before, after):
        return 0.0, 0.0
    rng = np.random.default_rng(0)
    kinds = np.flatnonzero(answerable == 1), np.flatnonzero(answerable == 0)
    differences = []
    for _ in range(RESAMPLES):
        yes, no = (rng.choice(kind, size=len(kind)) for kind in kinds)
        areas = [auroc(run[yes].tolist(), run[no].tolist()) or 0.0 for run in (before, after)]
        differences.append(areas[1] - areas[0])
    return _bounds(np.array(differences))


def _bounds(means: Any) -> tuple[float, float]:
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(means, [tail, 100 - tail])
    return float(low), float(high)


def _unpaired(old: float, new: float, n_old: int, n_new: int) -> tuple[float, float]:
    """Return the interval of a difference of two shares of independent questions."""
    if old == new:
        return 0.0, 0.0
    error = math.sqrt(
        max(old * (1 - old), 0) / max(n_old, 1) + max(new * (1 - new), 0) / max(n_new, 1)
    )
    return new - old - _NORMAL_QUANTILE * error, new - old + _NORMAL_QUANTILE * error
