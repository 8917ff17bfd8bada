"""Write a conversation as the token ids each generation was trained on, and tidy its replies.

ChatGLM-6B and ChatGLM2 read one text with numbered rounds; ChatGLM3 and GLM-4 have a special
token per role. There nothing that a user or a document says can look like the start of another
message. In the text of the older two it could, so lines of a content that read as a marker are
broken with a zero-width space.

Base models, which continue a text, need none of this: encode the text itself.
"""

import json
import re
import unicodedata
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llm.errors import GenerationError, ToolCallError, UnsupportedModelError
from llm.tokenizers.base import Tokenizer

ROLES = ("system", "user", "assistant", "observation")

# Tools in a generation's own form, see `llm.tools.native_tools`; anything JSON can write.
NativeTools = Sequence[Mapping[str, Any]] | Mapping[str, Any]

# Both as published with the models.
_CHATGLM3_TOOLS = (
    "Answer the following questions as best as you can. You have access to the following tools:"
)
_GLM4_TOOLS = (
    "你是一个名为 ChatGLM 的人工智能助手。你是基于智谱AI训练的语言模型 GLM-4 模型开发的，"
    "你的任务是针对用户的问题和要求提供适当的答复和支持。\n\n# 可用工具"
)
_GLM4_TOOL_END = "在调用上述函数时，请使用 Json 格式表示调用的参数。"

# A line that begins a round, as it looks once look-alikes are normalised and what no one sees is
# gone: ChatGLM-6B's tokenizer does both.
_MARKER = re.compile(r"\[Round\s*\d+\s*\]|[问答]\s*:")
_INVISIBLE = "\x00-\x1f\x7f-\x9f\u00ad\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff"
_FIRST_VISIBLE = re.compile(rf"[^\s{_INVISIBLE}]")
_BREAK = "\u200b"

_HAN = "[\u4e00-\u9fff]"
_FULL_WIDTH = {",": "，", "!": "！", ":": "：", ";": "；", "?": "？"}


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a conversation.

    `role` is one of `ROLES`; an observation is what a tool returned. `name` counts for the
    assistant only: the tool that this message calls, which has the first line of the message to
    itself.
    """

    role: str
    content: str
    name: str = ""


def encode_chat(
    tokenizer: Tokenizer,
    generation: str,
    messages: Sequence[Message],
    tools: NativeTools | None = None,
) -> list[int]:
    """Return the ids after which the model writes the assistant's next message.

    Args:
        tokenizer: the model's own.
        generation: "chatglm", "chatglm2", "chatglm3" or "glm4".
        messages: the conversation, which ends with a question or an observation. ChatGLM-6B and
            ChatGLM2 have no system role: system texts go before the first question.
        tools: what the model may call, in its own form; only for ChatGLM3 and GLM-4.

    Raises:
        GenerationError: the conversation does not end with a question, or a role is unknown.
        ToolCallError: tools or observations for a model that knows none, or a name of several
            lines.
    """
    _check(messages)
    match generation:
        case "chatglm" | "chatglm2":
            if tools or any(message.role == "observation" for message in messages):
                raise ToolCallError(
                    f"{generation} cannot call tools; leave them out, or use ChatGLM3 or GLM-4"
                )
            text = _write_rounds(generation, messages)
            return [*tokenizer.prefix_ids, *tokenizer.encode(text), *tokenizer.suffix_ids]
        case "chatglm3":
            return _encode_roles(tokenizer, _with_chatglm3_tools(messages, tools))
        case "glm4":
            return _encode_roles(tokenizer, _with_glm4_tools(messages, tools))
    raise UnsupportedModelError(f"no chat format for the model generation {generation!r}")


def clean_reply(generation: str, text: str) -> str:
    """Tidy a whole reply as the published code does.

    White space around it goes, a placeholder of the training data is filled in, and ChatGLM-6B's
    ASCII punctuation beside Chinese characters becomes full-width.
    """
    text = text.strip().replace("[[训练时间]]", "2023年")
    if generation == "chatglm":
        for mark, full_width in _FULL_WIDTH.items():
            text = re.sub(rf"({_HAN})\{mark}", rf"\1{full_width}", text)
            text = re.sub(rf"\{mark}({_HAN})", rf"{full_width}\1", text)
    return text


def split_metadata(text: str, tool_names: Collection[str]) -> tuple[str, str]:
    """Split a reply of ChatGLM3 or GLM-4 into the tool it calls and the rest.

    The first line of a reply is for the name of a tool and is empty in an ordinary answer. A model
    that forgets the empty line loses nothing: only a name in `tool_names` counts.
    """
    first, _, rest = text.partition("\n")
    if first.strip() in tool_names:
        return first.strip(), rest
    return "", text if first.strip() else rest


def _check(messages: Sequence[Message]) -> None:
    for message in messages:
        if message.role not in ROLES:
            raise GenerationError(
                f"no role is called {message.role!r}; there are {', '.join(ROLES)}"
            )
        if message.role == "assistant" and "\n" in message.name:
            raise ToolCallError("the name of a called tool has several lines; it must be one word")
    if not messages or messages[-1].role not in ("user", "observation"):
        raise GenerationError(
            "the conversation does not end with a question; add a message of the user"
        )


def _write_rounds(generation: str, messages: Sequence[Message]) -> str:
    rounds = _rounds(messages)
    *history, (question, _) = rounds
    if generation == "chatglm":
        if not history:
            return question
        parts = [f"[Round {i}]\n问：{q}\n答：{a}\n" for i, (q, a) in enumerate(history)]
        return "".join(parts) + f"[Round {len(history)}]\n问：{question}\n答："
    parts = [f"[Round {i}]\n\n问：{q}\n\n答：{a}\n\n" for i, (q, a) in enumerate(history, start=1)]
    return "".join(parts) + f"[Round {len(rounds)}]\n\n问：{question}\n\n答："


def _rounds(messages: Sequence[Message]) -> list[tuple[str, str]]:
    """Return questions with their answers; messages of one role in a row are joined."""
    system: list[str] = []
    rounds: list[tuple[list[str], list[str]]] = [([], [])]
    for message in messages:
        content = "\n".join(map(_break_marker, message.content.split("\n")))
        if message.role == "system":
            system.append(content)
        elif message.role == "assistant":
            rounds[-1][1].append(content)
        elif rounds[-1][1]:
            rounds.append(([content], []))
        else:
            rounds[-1][0].append(content)
    rounds[0][0][:0] = system
    return [("\n".join(questions), "\n".join(answers)) for questions, answers in rounds]


def _break_marker(line: str) -> str:
    """Return `line`, or if it reads as a marker, with a zero-width space in the marker."""
    first = _FIRST_VISIBLE.search(line)
    looks = re.sub(f"[{_INVISIBLE}]", "", unicodedata.normalize("NFKC", line)).lstrip()
    if first is None or not _MARKER.match(looks):
        return line
    return line[: first.end()] + _BREAK + line[first.end() :]


def _encode_roles(tokenizer: Tokenizer, messages: Iterator[Message]) -> list[int]:
    ids = list(tokenizer.prefix_ids)
    for message in messages:
        name = message.name if message.role == "assistant" else ""
        ids.append(tokenizer.special_ids[f"<|{message.role}|>"])
        # Each by itself, as in training: the model saw the joints, not a text with them in it.
        ids += tokenizer.encode(f"{name}\n")
        ids += tokenizer.encode(message.content)
    return [*ids, tokenizer.special_ids["<|assistant|>"]]


def _with_chatglm3_tools(
    messages: Sequence[Message], tools: NativeTools | None
) -> Iterator[Message]:
    """Add the tools to the first system text; ChatGLM3 knows one, at the beginning."""
    if tools:
        own = ""
        if messages[0].role == "system":
            own = f"{messages[0].content}\n"
            messages = messages[1:]
        yield Message("system", f"{own}{_CHATGLM3_TOOLS}\n{_json(tools)}")
    yield from messages


def _with_glm4_tools(messages: Sequence[Message], tools: NativeTools | None) -> Iterator[Message]:
    """Put a system message of its own with the tools first."""
    if tools:
        listed = tools.values() if isinstance(tools, Mapping) else tools
        texts = [f"\n\n## {tool['name']}\n\n{_json(tool)}\n{_GLM4_TOOL_END}" for tool in listed]
        yield Message("system", _GLM4_TOOLS + "".join(texts))
    yield from messages


def _json(tools: object) -> str:
    return json.dumps(tools, indent=4, ensure_ascii=False)
