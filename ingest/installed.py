"""Which embedder is whose: that of new knowledge bases, and those that made the others.

A base names its embedder by identity. The one that the settings name is looked at first, then
the embedded default, then every folder that was used before. One that cannot be found is no error
here: full text answers without it.
"""

import logging
import threading
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from ingest.embedder_folders import (
    BUILT_IN,
    InstalledFolder,
    OwnSettings,
    install,
    installed_names,
    remembered,
)
from kb.config import Settings
from kb.embedder import Embedder
from kb.errors import ConfigError, EmbedderError
from kb.protocols import Vectors
from kb.records import EmbedderSpec

if TYPE_CHECKING:
    from ingest.embedder import FolderEmbedder, Form, MiniLMEmbedder

logger = logging.getLogger(__name__)


class InstalledEmbedders(Embedder):
    """The embedder of new bases, that finds all others. Nothing is opened before it is used.

    Raises, where the embedder of new bases is used:
        ConfigError: the settings name none that is there.
        EmbedderError: its files cannot be used.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = threading.Lock()  # guards the found ones, so that none is loaded twice
        self._by_folder: dict[InstalledFolder, FolderEmbedder] = {}

    @property
    def spec(self) -> EmbedderSpec:  # type: ignore[override]  # read-only here
        return self._default.spec

    def embed_array(self, texts: Sequence[str]) -> Vectors:
        return self._default.embed_array(texts)

    def embed_query(self, text: str) -> list[float]:
        return self._default.embed_query(text)

    def matching(self, spec: EmbedderSpec) -> Embedder | None:
        for candidate in self._candidates():
            if found := candidate.matching(spec):
                return found
        return None

    def find(self, name_or_folder: str) -> Embedder:
        """Return the embedder with this name or in this folder.

        What the settings say of prefixes and scripts is of the embedder that they name, and of no
        other.

        Raises:
            ConfigError, EmbedderError
        """
        settings = self._settings
        if name_or_folder == BUILT_IN:
            return self._built_in
        own = OwnSettings()
        if name_or_folder == settings.embedder:
            own = OwnSettings(
                settings.embedder_query_prefix,
                settings.embedder_passage_prefix,
                settings.embedder_scripts,
            )
        return self._of_folder(install(settings.home, name_or_folder, own))

    @cached_property
    def _default(self) -> Embedder:
        return self.find(self._settings.embedder)

    @cached_property
    def _built_in(self) -> "MiniLMEmbedder":
        from ingest.embedder import MiniLMEmbedder

        return MiniLMEmbedder(
            self._form, batch_size=self._settings.embed_batch, threads=self._settings.threads
        )

    @property
    def _form(self) -> "Form | None":
        form = self._settings.embedder_form
        return None if form == "auto" else form

    def _of_folder(self, installed: InstalledFolder) -> "FolderEmbedder":
        from ingest.embedder import FolderEmbedder

        with self._lock:
            if installed not in self._by_folder:
                self._by_folder[installed] = FolderEmbedder(
                    installed,
                    self._form,
                    batch_size=self._settings.embed_batch,
                    threads=self._settings.threads,
                )
            return self._by_folder[installed]

    def _candidates(self) -> Iterator[Embedder]:
        try:
            yield self._default
        except (ConfigError, EmbedderError) as exc:
            logger.info("the embedder of new knowledge bases cannot be used: %s", exc)
        yield self._built_in
        for installed in remembered(self._settings.home):
            if installed.is_there():
                yield self._of_folder(installed)
        for name in installed_names(self._settings.home):  # the data folder may have moved
            try:
                yield self.find(name)
            except (ConfigError, EmbedderError) as exc:
                logger.info("the embedder %s cannot be used: %s", name, exc)
