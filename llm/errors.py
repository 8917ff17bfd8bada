"""Every expected failure of `llm`, with a message that says what to do next."""


class LlmError(Exception):
    """Base of all expected failures here; anything else is a bug."""


class CheckpointError(LlmError):
    """A checkpoint folder or model file is missing something, damaged, or not what it says."""


class UnsupportedModelError(LlmError):
    """The architecture or format is none of those that `llm` runs."""


class DownloadError(LlmError):
    """A checkpoint could not be fetched."""


class NotEnoughMemoryError(LlmError):
    """The model or the request does not fit into the memory at hand."""


class PromptTooLongError(LlmError):
    """The prompt leaves no room in the context window."""


class GenerationError(LlmError):
    """Generating went wrong: logits that are not numbers, or a request that cannot be."""


class ToolCallError(LlmError):
    """Tools were asked of a model that has no format for them, or in a form it cannot take."""
