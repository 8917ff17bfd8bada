"""Answer with a chat model: any LangChain `BaseChatModel`, streamed.

The model only writes; which passage proves a sentence is decided afterwards
(`kb.answers.citations`).
"""

import logging
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import (
    AIMessageChunk,
    BaseMessage,
    convert_to_messages,
)

from kb.answers.cited_stream import with_citations
from kb.errors import AnswererError, InvalidInputError
from kb.prompt import CountTokens, build_messages
from kb.records import AnswerEvent, Draft, Drafted, Passage, Prompt, Question, Token, Usage

logger = logging.getLogger(__name__)


class ChatAnswerer:
    """Implements `kb.protocols.Answerer` over a chat model."""

    def __init__(
        self,
        model: BaseChatModel,
        *,
        name: str = "",
        context_tokens: int = 8192,
        max_new_tokens: int = 1024,
        count_tokens: CountTokens | None = None,
        clear_errors: tuple[type[Exception], ...] = (),
        input_errors: tuple[type[Exception], ...] = (),
        takes_seed: bool = False,
    ) -> None:
        """Wrap a model.

        Args:
            model: streams if it can; one that cannot gives its answer in one piece.
            name: shown to the user; default is the name that the model reports.
            context_tokens: its context window, prompt and completion together.
            max_new_tokens: room left for the completion.
            count_tokens: tokens of a text in this model; default is a cautious estimate.
            clear_errors: failures whose own message says what to do.
            input_errors: those among them that the question is to blame for.
            takes_seed: whether a request may name the seed of its sampling.
        """
        self._model = model
        self._name = name
        self._budget_tokens = max(context_tokens - max_new_tokens, context_tokens // 2)
        self._max_new_tokens = max_new_tokens
        self._count_tokens = count_tokens
        self._clear_errors = clear_errors
        self._input_errors = input_errors
        self._takes_seed = takes_seed

    @property
    def chat_model(self) -> BaseChatModel:
        """The wrapped model."""
        return self._model

    @property
    def model(self) -> str:
        if self._name:
            return self._name
        reported = getattr(self._model, "model_name", None) or getattr(self._model, "model", None)
        return str(reported or self._model._llm_type)

    def answer(self, question: Question, passages: Sequence[Passage]) -> Iterator[AnswerEvent]:
        """Yield Token events as they come, Cited where a sentence is complete, then one Drafted.

        Raises:
            AnswererError: the model failed, cannot be reached, or said nothing.
            InvalidInputError: it cannot take a prompt of this length.
        """
        messages, kept = self._prompt(question, passages)
        if passages and not kept:
            raise AnswererError(
                f"the question leaves no room for any passage within the {self._budget_tokens:,} "
                "tokens that the model's context window has for prompts; shorten it"
            )
        seed = None
        if self._takes_seed:
            seed = secrets.randbits(31) if question.seed is None else question.seed
        prompt = Prompt(
            messages=tuple((message.type, message.text) for message in messages),
            passages=tuple(passage.number for passage in kept),
            sampling=self.sampling,
            seed=seed,
        )
        for event in with_citations(self._send(prompt), passages):
            if isinstance(event, Drafted):
                event = Drafted(replace(event.draft, prompt=prompt))
            yield event

    def fitting(self, question: Question, passages: Sequence[Passage]) -> list[Passage]:
        """Return the passages that the prompt has room for."""
        return self._prompt(question, passages)[1]

    def complete(self, messages: Sequence[BaseMessage], max_tokens: int) -> str:
        """Return the completion of a conversation, greedy.

        Raises:
            AnswererError: the model failed, cannot be reached, or said nothing.
        """
        for event in self.chat(list(messages), max_tokens=max_tokens, temperature=0.0):
            if isinstance(event, Drafted):
                return event.draft.text
        raise AnswererError(f"the model {self.model!r} gave no answer")

    def resend(self, prompt: Prompt) -> Draft:
        """Send a prompt again as it was sent, with its seed, but with the `sampling` of now.

        Raises:
            AnswererError: the model failed, cannot be reached, or said nothing.
        """
        for event in self._send(prompt):
            if isinstance(event, Drafted):
                return event.draft
        raise AnswererError(f"the model {self.model!r} gave no answer")

    def _send(self, prompt: Prompt) -> Iterator[AnswerEvent]:
        options = {} if prompt.seed is None else {"seed": prompt.seed}
        return self.chat(convert_to_messages(list(prompt.messages)), **options)

    def _prompt(
        self, question: Question, passages: Sequence[Passage]
    ) -> tuple[list[BaseMessage], list[Passage]]:
        return build_messages(
            question.text,
            passages,
            question.history,
            budget_tokens=self._budget_tokens,
            count_tokens=self._count_tokens,
        )

    @property
    def sampling(self) -> dict[str, Any]:
        """Return the model's own settings that decide the next token; None is its default."""
        names = ("temperature", "top_p", "top_k", "repetition_penalty")
        found = {name: getattr(self._model, name, None) for name in names}
        return {name: value for name, value in found.items() if value is not None} | {
            "max_new_tokens": self._max_new_tokens
        }

    def chat(self, messages: list[BaseMessage], **options: Any) -> Iterator[AnswerEvent]:
        """Yield Token events, then one Drafted, for messages as they are, without passages.

        Args:
            messages: a conversation that ends with the user's message.
            options: settings of this request that the model knows, such as `temperature`.

        Raises:
            AnswererError: the model failed, cannot be reached, or said nothing.
            InvalidInputError: it cannot take a prompt of this length.
        """
        pieces: list[str] = []
        total: AIMessageChunk | None = None
        for chunk in self._stream(messages, options):
            total = chunk if total is None else total + chunk
            text = chunk.text
            if text:
                pieces.append(text)
                yield Token(text)
        answer = "".join(pieces)
        if not answer.strip():
            raise AnswererError(f"the model {self.model!r} gave an empty answer; ask again")
        yield Drafted(
            Draft(
                text=answer,
                answer_span=None,
                quotes=(),
                usage=_usage(total),
                is_cut_off=_is_cut_off(total),
            )
        )

    def _stream(
        self, messages: list[BaseMessage], options: dict[str, Any]
    ) -> Iterator[AIMessageChunk]:
        options = {"max_tokens": self._max_new_tokens, **options}
        try:
            for chunk in self._model.stream(messages, **options):
                if isinstance(chunk, AIMessageChunk):
                    yield chunk
        except self._input_errors as exc:
            raise InvalidInputError("question", str(exc)) from exc
        except self._clear_errors as exc:
            raise AnswererError(f"the model {self.model!r}: {exc}") from exc
        except Exception as exc:  # any LangChain model: each library raises what it likes
            logger.warning("the chat model failed", exc_info=True)
            raise AnswererError(
                f"the model {self.model!r} failed ({type(exc).__name__}); "
                "is its server running and its address right?"
            ) from exc


def _is_cut_off(total: AIMessageChunk | None) -> bool:
    return total is not None and total.response_metadata.get("finish_reason") == "length"


def _usage(total: AIMessageChunk | None) -> Usage:
    usage = total.usage_metadata if total is not None else None
    if usage is None:
        return Usage()
    details = usage.get("input_token_details") or {}
    return Usage(
        prompt_tokens=usage["input_tokens"],
        cached_tokens=details.get("cache_read", 0) or 0,
        completion_tokens=usage["output_tokens"],
    )
