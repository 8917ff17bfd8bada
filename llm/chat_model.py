"""ChatGLM as a LangChain chat model: a converted model folder in, messages in, text out.

    model = ChatGLM.load("models/chatglm3-6b")
    for chunk in model.stream("你好"):
        print(chunk.text, end="")

Runs in this process, one request after the other (`llm.engine`). Roles in messages become role
tokens by id; nothing typed in a message can become one. A caller that may lose interest before the
first token passes a function as `is_cancelled`, which is asked for every layer of the prompt:
`model.stream(messages, is_cancelled=left.is_set)`.
"""

import json
import secrets
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import torch
from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)
from langchain_core.messages.ai import UsageMetadata
from langchain_core.messages.tool import tool_call_chunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable
from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_openai_tool
from pydantic import ConfigDict, Field

from llm.chat_format import Message, clean_reply, encode_chat, split_metadata
from llm.detokenize import TextStream
from llm.engine import Engine, Finished, NewToken
from llm.errors import GenerationError, ToolCallError, UnsupportedModelError
from llm.kv_cache import KVForm
from llm.model import never
from llm.sampler import SamplingParams, default_params
from llm.store import Progress, load_model, read_description
from llm.tokenizers import Tokenizer, load_tokenizer
from llm.tools import ToolCall, format_tool_call, native_tools, parse_tool_calls

_PLACEHOLDER = "[[训练时间]]"


class ChatGLM(BaseChatModel):
    """A ChatGLM model. Make one with `ChatGLM.load`; `close` it when done.

    Sampling settings left None are the model's published defaults.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    engine: Engine = Field(exclude=True)
    tokenizer: Any = Field(exclude=True)  # a llm.tokenizers.Tokenizer; pydantic knows no protocol
    model_name: str
    max_new_tokens: int = 1024
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    repetition_penalty: float | None = None
    seed: int | None = None

    @classmethod
    def load(
        cls,
        folder: str | Path,
        *,
        context_tokens: int = 0,
        dtype: torch.dtype | None = None,
        device: str = "cpu",
        kv_form: KVForm = "model",
        threads: int = 0,
        progress: Progress | None = None,
        **settings: Any,
    ) -> Self:
        """Open a converted model.

        Args:
            folder: written by `llm.convert.convert`.
            context_tokens: context window; 0 takes the model's own, or 8,192 if that is more.
            dtype: of activations; default bf16.
            device: "cpu" or "cuda".
            kv_form: how keys and values are kept.
            threads: for computing; 0 leaves torch's number.
            progress: called with (done, total, name) while weights are packed anew.
            settings: fields of this class.

        Raises:
            CheckpointError: damaged or missing files.
            UnsupportedModelError: a base model, which has no chat format.
            NotEnoughMemoryError: before anything is loaded.
        """
        folder = Path(folder)
        config = read_description(folder).config
        if not config.is_chat:
            raise UnsupportedModelError(
                f"{str(folder)!r} is a base model, which continues texts and cannot chat; use the "
                "chat model of the same name, or llm.engine directly"
            )
        window = min(context_tokens or 8192, config.context_window)
        tokenizer = load_tokenizer(folder, config.generation, id_offset=config.id_offset)
        model = load_model(
            folder,
            dtype=dtype,
            device=device,
            context_tokens=window,
            kv_form=kv_form,
            progress=progress,
        )
        engine = Engine(
            model,
            context_window=window,
            n_token_ids=min(tokenizer.vocab_size, config.vocab_size),
            kv_form=kv_form,
            threads=threads,
        )
        return cls(engine=engine, tokenizer=tokenizer, model_name=folder.name, **settings)

    def close(self) -> None:
        """Stop the engine's thread. May be called twice."""
        self.engine.close()

    @property
    def context_window(self) -> int:
        """Tokens of prompt and completion together."""
        return self.engine.context_window

    @property
    def _llm_type(self) -> str:
        return "chatglm"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {"model_name": self.model_name, "generation": self._generation}

    @property
    def _generation(self) -> str:
        return self.engine.model.config.generation

    def get_token_ids(self, text: str) -> list[int]:
        """Return the ids of a plain text."""
        tokenizer: Tokenizer = self.tokenizer
        return tokenizer.encode(text)

    def count_tokens(self, text: str) -> int:
        """Return how many tokens a plain text has."""
        return len(self.get_token_ids(text))

    def bind_tools(
        self,
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool],
        *,
        tool_choice: str | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Offer tools; their calls come back as `tool_calls` of the answer.

        Raises:
            ToolCallError: ChatGLM-6B or 2, which know no tools; or a `tool_choice` that forces
                a call, which these models cannot be made to do.
        """
        if tool_choice not in (None, "auto"):
            raise ToolCallError("ChatGLM chooses by itself whether to call; leave tool_choice out")
        described = [convert_to_openai_tool(tool) for tool in tools]
        native_tools(self._generation, described)  # fail here, not at the first question
        return self.bind(tools=described, **kwargs)

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        total: AIMessageChunk | None = None
        for chunk in self._stream(messages, stop, run_manager, **kwargs):
            assert isinstance(chunk.message, AIMessageChunk)
            total = chunk.message if total is None else total + chunk.message
        assert total is not None  # the last chunk always comes
        message = AIMessage(
            content=total.content,
            tool_calls=total.tool_calls,
            usage_metadata=total.usage_metadata,
            response_metadata=total.response_metadata,
        )
        return ChatResult(generations=[ChatGeneration(message=message)])

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        tools = native_tools(self._generation, kwargs["tools"]) if kwargs.get("tools") else None
        prompt = encode_chat(
            self.tokenizer,
            self._generation,
            [part for message in messages for part in _to_messages(message, self._generation)],
            tools,
        )
        params = self._params(kwargs, stop)
        request = self.engine.submit(
            prompt,
            params,
            stop_ids=self.tokenizer.stop_ids,
            is_cancelled=kwargs.get("is_cancelled") or never,
        )
        text = TextStream(self.tokenizer, params.stop)
        pieces = _Pieces(self._generation, [tool["name"] for tool in tools or []])
        finished: Finished | None = None
        for event in request:  # leaving this loop early cancels the request
            if isinstance(event, NewToken):
                piece = pieces.push(text.push(event.token_id))
                if text.is_stopped:
                    request.cancel()
            else:
                finished = event
                piece = pieces.push(text.finish())
            if piece:
                chunk = ChatGenerationChunk(message=AIMessageChunk(content=piece))
                if run_manager:
                    run_manager.on_llm_new_token(piece, chunk=chunk)
                yield chunk
        assert finished is not None  # a request ends with it or raises
        rest, calls = pieces.finish()
        reason = "stop" if text.is_stopped else finished.reason
        yield ChatGenerationChunk(
            message=AIMessageChunk(
                content=rest,
                tool_call_chunks=[
                    tool_call_chunk(
                        name=call.name,
                        args=_as_json(call),
                        id=f"call_{secrets.token_hex(8)}",
                        index=i,
                    )
                    for i, call in enumerate(calls)
                ],
                usage_metadata=UsageMetadata(
                    input_tokens=finished.prompt_tokens,
                    output_tokens=finished.completion_tokens,
                    total_tokens=finished.prompt_tokens + finished.completion_tokens,
                ),
                response_metadata={
                    "finish_reason": reason,
                    "model_name": self.model_name,
                    "prefill_s": round(finished.prefill_s, 4),
                    "decode_s": round(finished.decode_s, 4),
                },
                chunk_position="last",
            )
        )

    def _params(self, kwargs: dict[str, Any], stop: list[str] | None) -> SamplingParams:
        """Join what the call says, what this object says, and the model's defaults."""
        defaults = default_params(self.engine.model.config.generation)

        def choose(name: str, default: Any) -> Any:
            for value in (kwargs.get(name), getattr(self, name)):
                if value is not None:
                    return value
            return default

        known = {"temperature", "top_p", "top_k", "repetition_penalty", "seed"}
        ours = {
            "max_tokens",
            "max_new_tokens",
            "tools",
            "tool_choice",
            "is_cancelled",
            "ls_structured_output_format",
        }
        if unknown := set(kwargs) - known - ours:
            raise GenerationError(f"unknown settings of a request: {', '.join(sorted(unknown))}")
        limit = kwargs.get("max_tokens") or choose("max_new_tokens", defaults.max_new_tokens)
        return SamplingParams(
            max_new_tokens=limit,
            temperature=choose("temperature", defaults.temperature),
            top_k=choose("top_k", defaults.top_k),
            top_p=choose("top_p", defaults.top_p),
            repetition_penalty=choose("repetition_penalty", defaults.repetition_penalty),
            seed=choose("seed", None),
            stop=tuple(stop or ()),
        )


class _Pieces:
    """Tidies a streamed reply as `clean_reply` would tidy the whole.

    With tools on offer nothing is shown before the end, since a call may begin anywhere.
    """

    def __init__(self, generation: str, tool_names: Sequence[str]) -> None:
        self._generation = generation
        self._tool_names = tool_names
        self._held = ""  # not shown yet
        self._last = ""  # the last character shown, as the model wrote it

    def push(self, text: str) -> str:
        """Return what may be shown now."""
        self._held += text
        if self._tool_names:
            return ""
        if not self._last:
            self._held = self._held.lstrip()
        # What a later token may still change stays: white space at the end, the beginning of a
        # placeholder, and for ChatGLM-6B a mark whose neighbour is not known yet.
        end = len(self._held.rstrip())
        for n in range(min(len(_PLACEHOLDER) - 1, end), 0, -1):
            if _PLACEHOLDER.startswith(self._held[end - n : end]):
                end -= n
                break
        while self._generation == "chatglm" and end and self._held[end - 1] in ",!:;?":
            end -= 1
        return self._show(end)

    def finish(self) -> tuple[str, list[ToolCall]]:
        """Return the rest, and the tools that the reply calls."""
        if self._tool_names:
            rest, calls = parse_tool_calls(self._generation, self._held, self._tool_names)
            if not calls:
                rest = split_metadata(rest, self._tool_names)[1]
            return clean_reply(self._generation, rest), calls
        return self._show(len(self._held.rstrip())), []

    def _show(self, end: int) -> str:
        ready, self._held = self._held[:end], self._held[end:]
        if not ready:
            return ""
        # Marks between brackets keep `clean_reply` from stripping white space inside the answer;
        # the neighbours decide how a mark of punctuation at an edge is written.
        before, after = self._last.strip() or "[", self._held[:1].strip() or "]"
        self._last = ready[-1]
        tidied = clean_reply(self._generation, before + ready + after)
        return tidied[1:-1]


def _to_messages(message: BaseMessage, generation: str) -> Iterator[Message]:
    """Return what a LangChain message is in the model's conversation."""
    if isinstance(message, SystemMessage):
        yield Message("system", message.text)
    elif isinstance(message, HumanMessage):
        yield Message("user", message.text)
    elif isinstance(message, ToolMessage):
        yield Message("observation", message.text)
    elif isinstance(message, AIMessage):
        if message.text or not message.tool_calls:
            yield Message("assistant", message.text)
        for call in message.tool_calls:
            yield format_tool_call(generation, ToolCall(call["name"], dict(call["args"])))
    else:
        raise GenerationError(f"ChatGLM has no role for a message of type {message.type!r}")


def _as_json(call: ToolCall) -> str:
    return json.dumps(call.arguments, ensure_ascii=False)
