"""Everything `kb` and `ingest` raise on purpose.

    KBError
    ├── NotFoundError
    │   ├── KnowledgeBaseNotFoundError
    │   ├── KnowledgeBaseDeletedError   while it was being worked on
    │   ├── DocumentNotFoundError
    │   ├── VersionNotFoundError        of a document, which no stored answer cites any more
    │   ├── JobNotFoundError
    │   ├── TraceNotFoundError
    │   └── ModelNotFoundError
    ├── AlreadyExistsError
    ├── InvalidInputError          a name, question or option that cannot be used
    ├── ConfigError                a setting is unknown or has a bad value
    ├── VersionMismatchError       the base was built by another embedder, splitter or full text
    │   └── EmbedderMovedError     it was moved to another embedder while it was being used
    ├── ConfirmationNeededError    a sync would remove much; repeat with --yes
    ├── StorageError               the data folder cannot be read or written
    │   └── DatabaseTooNewError
    ├── IndexCorruptError          a snapshot and the database disagree
    ├── EmbedderError              the embedder cannot be loaded
    ├── AnswererError              the chat model failed or cannot be reached
    ├── CancelledError             the user stopped a job
    └── LoadError                  one source file could not be read
        ├── UnsupportedFormatError
        ├── EncryptedFileError
        ├── CorruptFileError
        ├── UndecodableTextError
        └── LimitExceededError     too large, too slow or too deep to parse safely

Anything else that escapes is a bug and should reach the user as a traceback in
the log and a plain "internal error" in the response.
"""

from collections.abc import Sequence


class KBError(Exception):
    """Base class: catch this to catch every expected failure."""


class NotFoundError(KBError):
    """The caller named something that does not exist."""


class KnowledgeBaseNotFoundError(NotFoundError):
    def __init__(self, name: str, known: Sequence[str]) -> None:
        self.name = name
        hint = f"known: {', '.join(known)}" if known else "there are none yet; run `kb create NAME`"
        super().__init__(f"no knowledge base named {name!r} ({hint})")


class KnowledgeBaseDeletedError(NotFoundError):
    def __init__(self, name: str) -> None:
        super().__init__(f"knowledge base {name!r} was deleted meanwhile")


class DocumentNotFoundError(NotFoundError):
    def __init__(self, document: str, base: str) -> None:
        super().__init__(
            f"no document {document!r} in knowledge base {base!r}; list them with `kb docs list`"
        )


class VersionNotFoundError(NotFoundError):
    def __init__(self, document: str, version_id: int) -> None:
        super().__init__(
            f"{document!r} has no version {version_id}: an older text is kept only while a stored "
            "answer cites it"
        )


class ModelNotFoundError(NotFoundError):
    """No language model of that name is installed."""


class JobNotFoundError(NotFoundError):
    def __init__(self, job_id: str) -> None:
        super().__init__(f"no job {job_id!r}")


class TraceNotFoundError(NotFoundError):
    def __init__(self, trace_id: str) -> None:
        super().__init__(f"no stored answer {trace_id!r}")


class AlreadyExistsError(KBError):
    """The name is taken."""


class InvalidInputError(KBError):
    """A name, question or option cannot be used; `field` says which one."""

    def __init__(self, field: str, message: str) -> None:
        self.field = field
        super().__init__(f"{field}: {message}")


class ConfigError(KBError):
    """A setting is unknown or its value cannot be used."""


class VersionMismatchError(KBError):
    """The knowledge base was built with another embedder, splitter or full text."""


class EmbedderMovedError(VersionMismatchError):
    """The knowledge base was moved to another embedder meanwhile; begin again with that one."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"knowledge base {name!r} was moved to another embedder meanwhile; run the same "
            "command again"
        )


class ConfirmationNeededError(KBError):
    """A sync would remove much; the user must say yes."""


class StorageError(KBError):
    """The data folder cannot be read or written."""


class DatabaseTooNewError(StorageError):
    """The database was written by a newer version of this program."""


class IndexCorruptError(KBError):
    """A vector index snapshot does not agree with the database."""


class EmbedderError(KBError):
    """The embedder cannot be loaded or does not match its checksum."""


class RerankerError(KBError):
    """The reranker cannot be loaded, or failed."""


class AnswererError(KBError):
    """The chat model failed or cannot be reached."""


class CancelledError(KBError):
    """The user stopped a job."""


class LoadError(KBError):
    """One source file could not be read; the message is the reason shown to the user."""


class UnsupportedFormatError(LoadError):
    """No loader knows this format."""


class EncryptedFileError(LoadError):
    """The file needs a password."""


class CorruptFileError(LoadError):
    """The file is damaged or is not what its name says."""


class UndecodableTextError(LoadError):
    """The bytes are not text in any encoding we can tell."""


class LimitExceededError(LoadError):
    """The file is too large, too slow or too deep to parse safely."""
