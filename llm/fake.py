"""A chat model without weights, for tests and examples.

It streams prepared replies a few characters at a time and remembers what it was asked.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from pydantic import Field


class FakeChatModel(BaseChatModel):
    """Replies with `replies` in turn, the last one for ever.

    `fails_after` makes the stream fail after that many pieces, as a lost connection does.
    `prompts` holds the messages of every call so far.
    """

    replies: Sequence[str] = ("I have no answer.",)
    piece_chars: int = 4
    fails_after: int | None = None
    prompts: list[list[BaseMessage]] = Field(default_factory=list)

    @property
    def _llm_type(self) -> str:
        return "fake"

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        text = "".join(self._pieces(messages, stop))
        message = AIMessage(text, usage_metadata=_usage(messages, text))
        return ChatResult(generations=[ChatGeneration(message=message)])

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        text = ""
        for piece in self._pieces(messages, stop):
            text += piece
            chunk = ChatGenerationChunk(message=AIMessageChunk(content=piece))
            if run_manager:
                run_manager.on_llm_new_token(piece, chunk=chunk)
            yield chunk
        yield ChatGenerationChunk(
            message=AIMessageChunk(content="", usage_metadata=_usage(messages, text))
        )

    def _pieces(self, messages: list[BaseMessage], stop: list[str] | None) -> Iterator[str]:
        self.prompts.append(messages)
        reply = self.replies[min(len(self.prompts), len(self.replies)) - 1]
        for word in stop or []:
            reply = reply.split(word)[0]
        for i, start in enumerate(range(0, len(reply), self.piece_chars)):
            if self.fails_after is not None and i >= self.fails_after:
                raise ConnectionError("the fake model lost its connection")
            yield reply[start : start + self.piece_chars]


def _usage(messages: list[BaseMessage], text: str) -> UsageMetadata:
    """Count characters in place of tokens."""
    prompt = sum(len(message.text) for message in messages)
    return UsageMetadata(
        input_tokens=prompt, output_tokens=len(text), total_tokens=prompt + len(text)
    )
