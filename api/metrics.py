"""Counters in Prometheus' text format, kept by hand: four families need no library.

Reference: https://prometheus.io/docs/instrumenting/exposition_formats/ (text format 0.0.4).
"""

import threading
from collections import Counter
from collections.abc import Iterable, Mapping

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
# Upper bounds in seconds: an extractive answer takes milliseconds, a model on a CPU a minute.
BUCKETS_S = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)


class Metrics:
    """What this process has served. Safe to share between threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests: Counter[tuple[str, str, int]] = Counter()
        self._ask_buckets = [0] * len(BUCKETS_S)
        self._ask_count = 0
        self._ask_sum_s = 0.0

    def count_request(self, method: str, route: str, status: int) -> None:
        """Count one reply; `route` is the template, never the path with its ids and names."""
        with self._lock:
            self._requests[method, route, status] += 1

    def time_ask(self, seconds: float) -> None:
        """Record how long one answer took, stream and all."""
        with self._lock:
            self._ask_count += 1
            self._ask_sum_s += seconds
            for index, bound in enumerate(BUCKETS_S):
                self._ask_buckets[index] += seconds <= bound

    def render(self, gauges: Mapping[str, tuple[str, float]]) -> str:
        """Return everything as text; `gauges` are ``name -> (help, value)`` read just now."""
        with self._lock:
            requests = sorted(self._requests.items())
            buckets = list(zip(BUCKETS_S, self._ask_buckets, strict=True))
            count, sum_s = self._ask_count, self._ask_sum_s
        lines = [*_head("kb_http_requests_total", "counter", "Replies by route and status.")]
        lines += [
            f'kb_http_requests_total{{method="{_escape(method)}",route="{_escape(route)}",'
            f'status="{status}"}} {number}'
            for (method, route, status), number in requests
        ]
        lines += _head("kb_ask_duration_seconds", "histogram", "Time to the end of an answer.")
        lines += [f'kb_ask_duration_seconds_bucket{{le="{le:g}"}} {n}' for le, n in buckets]
        lines += [
            f'kb_ask_duration_seconds_bucket{{le="+Inf"}} {count}',
            f"kb_ask_duration_seconds_sum {sum_s:.6f}",
            f"kb_ask_duration_seconds_count {count}",
        ]
        for name, (help_, value) in gauges.items():
            lines += [*_head(name, "gauge", help_), f"{name} {value:g}"]
        return "\n".join(lines) + "\n"


def _head(name: str, kind: str, help_: str) -> Iterable[str]:
    return f"# HELP {name} {help_}", f"# TYPE {name} {kind}"


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
