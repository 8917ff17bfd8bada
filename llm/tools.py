"""Tools in each generation's own form, and the calls a model writes.

ChatGLM3 writes a call as a line of Python in a fence, GLM-4 as JSON:

    get_weather                            get_weather
    ```python                              {"city": "北京"}
    tool_call(city='北京')
    ```

What a model writes is never run or evaluated: only literals are read. A call that is not exactly
of this form, or names a tool that was not offered, stays text.
"""

import ast
import json
import keyword
import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llm.chat_format import Message
from llm.errors import ToolCallError
from llm.tokenizers.base import replace_surrogates

# Longer calls stay text: Python's parser may need a hundred times this much memory. It bounds its
# own depth, within a stack of one megabyte; a thread on Linux has eight.
MAX_CALL_CHARS = 100_000
# A hexadecimal number may be longer than Python is willing to print in decimal.
_MAX_INTEGER_BITS = 1024

_FENCE_END = re.compile(r"\n[ \t]*```[ \t]*(?=\n|\Z)")
_GENERATIONS = ("chatglm3", "glm4")


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call of the tool `name`; the arguments are values that JSON can write."""

    name: str
    arguments: dict[str, Any]


def native_tools(
    generation: str, openai_tools: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Return tools described as for OpenAI in the form that the model was trained on.

    Takes both ``{"type": "function", "function": {...}}`` and the inner part alone, whose keys are
    name, description and parameters, a JSON schema.

    Raises:
        ToolCallError: the model cannot call tools, or a description is not of that form.
    """
    _check_generation(generation)
    tools = [_native_tool(tool) for tool in openai_tools]
    names = [tool["name"] for tool in tools]
    if len(set(names)) < len(names):
        raise ToolCallError("two tools have the same name; give each its own")
    return tools


def parse_tool_calls(
    generation: str, text: str, tool_names: Collection[str]
) -> tuple[str, list[ToolCall]]:
    """Take the calls of known tools out of a reply.

    Returns:
        What is left of the text, unchanged if there is no call, and the calls in order.
    """
    if not tool_names or generation not in _GENERATIONS:
        return text, []
    # The longest first: a name may be the beginning of another.
    names = "|".join(re.escape(name) for name in sorted(tool_names, key=len, reverse=True))
    parse = _parse_chatglm3 if generation == "chatglm3" else _parse_glm4
    rest, calls = parse(text, names)
    return (rest.strip(), calls) if calls else (text, [])


def format_tool_call(generation: str, call: ToolCall) -> Message:
    """Write a call as the message of the conversation that it was, for the next prompt.

    Raises:
        ToolCallError: the model cannot call tools.
    """
    _check_generation(generation)
    if generation == "glm4":
        arguments = json.dumps(call.arguments, ensure_ascii=False)
        return Message("assistant", arguments, call.name)
    names = [name for name in call.arguments if name.isidentifier() and not keyword.iskeyword(name)]
    written = [f"{name}={call.arguments[name]!r}" for name in names]
    if others := {name: value for name, value in call.arguments.items() if name not in names}:
        written.append(f"**{others!r}")
    return Message("assistant", f"```python\ntool_call({', '.join(written)})\n```", call.name)


def _check_generation(generation: str) -> None:
    if generation not in _GENERATIONS:
        raise ToolCallError(
            f"{generation} cannot call tools; leave them out, or use ChatGLM3 or GLM-4"
        )


def _native_tool(tool: Mapping[str, Any]) -> dict[str, Any]:
    function = tool.get("function", tool)
    name = function.get("name") if isinstance(function, Mapping) else None
    if not isinstance(name, str) or not re.fullmatch(r"[\w.-]{1,64}", name):
        raise ToolCallError(
            "a tool has no usable name; describe it as "
            '{"type": "function", "function": {"name": "...", "description": "...", '
            '"parameters": {...}}} with a name of up to 64 letters, digits, _, - or .'
        )
    native = {
        "name": name,
        "description": function.get("description") or "",
        "parameters": function.get("parameters") or {"type": "object", "properties": {}},
    }
    try:
        json.dumps(native, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as exc:
        raise ToolCallError(f"the description of the tool {name!r} is no JSON; mend it") from exc
    return native


def _parse_chatglm3(text: str, names: str) -> tuple[str, list[ToolCall]]:
    """Find calls anywhere in the reply: ChatGLM3 may explain first and then call."""
    head = re.compile(rf"^[ \t]*({names})[ \t]*\n[ \t]*```python[ \t]*(?=\n)", re.MULTILINE)
    calls: list[ToolCall] = []
    kept: list[str] = []
    start = 0
    while (found := head.search(text, start)) and (end := _FENCE_END.search(text, found.end())):
        arguments = _python_arguments(text[found.end() : end.start()])
        if arguments is None:
            kept.append(text[start : end.end()])
        else:
            kept.append(text[start : found.start()])
            calls.append(ToolCall(found[1], arguments))
        start = end.end()
    return "".join(kept) + text[start:], calls


def _parse_glm4(text: str, names: str) -> tuple[str, list[ToolCall]]:
    """Find calls at the beginning of the reply, the only place where GLM-4 writes them."""
    head = re.compile(rf"\s*({names})[ \t]*\n[ \t]*(?={{)")
    decoder = json.JSONDecoder()
    calls: list[ToolCall] = []
    start = 0
    while found := head.match(text, start):
        try:
            # Bounded, so that what follows a broken call costs nothing.
            written = text[found.end() : found.end() + MAX_CALL_CHARS]
            value, length = decoder.raw_decode(written)
            arguments = _plain(value)
        except (ValueError, RecursionError):
            break
        calls.append(ToolCall(found[1], arguments))
        start = found.end() + length
    return text[start:], calls


def _python_arguments(source: str) -> dict[str, Any] | None:
    """Return the arguments of ``tool_call(name=literal, ...)``, None if it is anything else."""
    if len(source) > MAX_CALL_CHARS:
        return None
    try:
        call = ast.parse(source.strip(), mode="eval").body
        if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Name)):
            return None
        if call.func.id != "tool_call" or call.args:
            return None
        arguments: dict[str, Any] = {}
        for argument in call.keywords:
            value = _plain(ast.literal_eval(argument.value))
            # ``**{"from": 1}`` is how a name is given that Python reserves.
            named = value if argument.arg is None else {argument.arg: value}
            if not isinstance(named, dict) or named.keys() & arguments.keys():
                return None
            arguments |= named
    # Everything that the parser says of hostile text; MemoryError is its own stack, not the heap.
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
        return None
    return arguments


def _plain(value: Any) -> Any:
    """Return `value` as JSON would give it back.

    Raises:
        ValueError: there are bytes, sets, numbers that JSON cannot write, or keys that are no text.
    """
    if isinstance(value, str):
        return replace_surrogates(value)
    if value is None or (isinstance(value, int) and value.bit_length() <= _MAX_INTEGER_BITS):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {_plain(key): _plain(item) for key, item in value.items()}
    raise ValueError(f"{type(value).__name__} is no JSON")
