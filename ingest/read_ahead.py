"""Parse files ahead of the work on their texts, as many at once as the parser has processes.

    files ──> threads, one per parser process ──> documents, in the order in which they are done

A file that takes minutes keeps one process busy; the others go on with the rest. At most
`AHEAD` documents per process wait to be taken, so that memory does not grow with the folder.
"""

import threading
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import islice

from ingest.parser import Parser
from ingest.scan import FoundFile
from kb.errors import CancelledError, LoadError
from kb.records import LoadedDocument

AHEAD = 4
_POLL_S = 0.2  # how often a caller that waits for slow files asks whether to stop


def read_ahead(
    parser: Parser, files: Sequence[FoundFile], is_cancelled: Callable[[], bool]
) -> Generator[tuple[FoundFile, LoadedDocument | LoadError | OSError]]:
    """Yield every file with its document, or with the reason why there is none.

    Closing the iterator stops the files that are being parsed.

    Raises:
        CancelledError: `is_cancelled` said so, or the parser was closed.
    """
    stopped = threading.Event()

    def load(file: FoundFile) -> LoadedDocument | LoadError | OSError:
        try:
            return parser.load(file.location, file.path, should_stop=stopped.is_set)
        except (LoadError, OSError) as exc:
            return exc

    waiting = iter(files)
    with ThreadPoolExecutor(parser.n_processes, thread_name_prefix="parse") as threads:
        running: dict[Future[LoadedDocument | LoadError | OSError], FoundFile] = {}
        try:
            while True:
                for file in islice(waiting, AHEAD * parser.n_processes - len(running)):
                    running[threads.submit(load, file)] = file
                if not running:
                    return
                done, _ = wait(running, timeout=_POLL_S, return_when=FIRST_COMPLETED)
                if is_cancelled():
                    raise CancelledError("cancelled while files were parsed")
                for future in done:
                    yield running.pop(future), future.result()
        finally:
            stopped.set()
            threads.shutdown(wait=False, cancel_futures=True)
