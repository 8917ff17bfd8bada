"""Tools and the calls that models write."""

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm.chat_format import split_metadata
from llm.errors import ToolCallError
from llm.tools import ToolCall, format_tool_call, native_tools, parse_tool_calls

NAMES = ["get_weather", "search", "get_weather_of_week"]
GENERATIONS = ("chatglm3", "glm4")


def python_call(arguments: str, name: str = "get_weather") -> str:
    return f"{name}\n ```python\ntool_call({arguments})\n```"


def calls_in(generation: str, text: str) -> list[ToolCall]:
    return parse_tool_calls(generation, text, NAMES)[1]


def test_chatglm3_calls_in_a_line_of_python() -> None:
    rest, calls = parse_tool_calls("chatglm3", python_call("city='北京', days=2"), NAMES)

    assert rest == ""
    assert calls == [ToolCall("get_weather", {"city": "北京", "days": 2})]


def test_chatglm3_may_explain_before_it_calls() -> None:
    text = (
        f"\n 好的，让我们来查看今天的天气。\n{python_call('')}\n{python_call('q=None', 'search')}"
    )

    rest, calls = parse_tool_calls("chatglm3", text, NAMES)

    assert rest == "好的，让我们来查看今天的天气。"
    assert calls == [ToolCall("get_weather", {}), ToolCall("search", {"q": None})]


def test_glm4_calls_in_json() -> None:
    rest, calls = parse_tool_calls("glm4", 'get_weather\n{"city": "北京",\n "days": 2}', NAMES)

    assert rest == ""
    assert calls == [ToolCall("get_weather", {"city": "北京", "days": 2})]


def test_glm4_may_call_several_times() -> None:
    text = '\nget_weather_of_week \n{}\nget_weather\n{"a": [1, {"b": null}]}\n好的'

    rest, calls = parse_tool_calls("glm4", text, NAMES)

    assert rest == "好的"
    assert calls == [
        ToolCall("get_weather_of_week", {}),
        ToolCall("get_weather", {"a": [1, {"b": None}]}),
    ]


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(arguments=st.dictionaries(st.sampled_from(["city", "from", "a b", "年", "x1"]), JSON))
@pytest.mark.parametrize("generation", GENERATIONS)
def test_a_call_in_the_history_reads_as_the_model_wrote_it(
    generation: str, arguments: dict[str, Any]
) -> None:
    call = ToolCall("get_weather", arguments)

    message = format_tool_call(generation, call)

    assert message.role == "assistant"
    assert calls_in(generation, f"{message.name}\n{message.content}") == [call]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "get_weather",
        "get_weather\n",
        "get_weather\n ```python\n```",
        "get_weather\n ```python\ntool_call(a=1)",
        "```python\ntool_call(a=1)\n```",
        python_call("a=1", "delete_everything"),
        python_call("1"),
        python_call("a=1, a=2"),
        python_call("a=1, **{'a': 2}"),
        python_call("**{1: 2}"),
        python_call("**x"),
        python_call("*[1]"),
        python_call("a=__import__('os').system('true')"),
        python_call("a=().__class__"),
        python_call("a=[x for x in [1]]"),
        python_call("a=lambda: 1"),
        python_call("a=f'{1}'"),
        python_call("a='x' * 10**9"),
        python_call("a=b'x'"),
        python_call("a={1}"),
        python_call("a={1: 2}"),
        python_call("a={[]: 2}"),
        python_call("a=1j"),
        python_call("a=..."),
        python_call("a=1e999"),
        python_call("a=" + "9" * 9999),
        python_call("a=0x" + "f" * 9999),
        python_call("a='\x00'"),
        python_call("a=1)(b=2"),
        python_call("a=1); tool_call(b=2"),
        python_call("a=" + "(" * 40_000 + ")" * 40_000),
        python_call("a=" + "[" * 500_000 + "]" * 500_000),
        python_call("a=" + "-" * 90_000 + "1"),
        python_call("a=" + "not " * 20_000 + "1"),
        python_call("a=" + "1+" * 40_000 + "1"),
        python_call("a=" + "{'a':" * 150 + "1" + "}" * 150 + ".b"),
        "get_weather\n ```python\nexec('x')\n```",
        "get_weather\n ```python\nos.tool_call(a=1)\n```",
    ],
    ids=range(39),
)
def test_anything_else_in_python_stays_text(text: str) -> None:
    assert parse_tool_calls("chatglm3", text, NAMES) == (text, [])


@pytest.mark.parametrize(
    "text",
    [
        "get_weather",
        "get_weather\n[1]",
        "get_weather\n1",
        'get_weather\n{"a": 1',
        "get_weather\n{'a': 1}",
        'get_weather\n{"a": NaN}',
        'get_weather\n{"a": Infinity}',
        'get_weather\n{"a": 1e999}',
        'get_weather {"a": 1}',
        'delete_everything\n{"a": 1}',
        '说明：\nget_weather\n{"a": 1}',
        'get_weather\n{"a": ' + "[" * 500_000 + "]" * 500_000 + "}",
        'get_weather\n{"a": ' + '{"a": ' * 40_000,
        'get_weather\n{"a": ' + "9" * 9999 + "}",
        'get_weather\n{"a": "' + "x" * 1_000_000 + '"}',
        "get_weather\n\n{}",
    ],
    ids=range(16),
)
def test_anything_else_in_json_stays_text(text: str) -> None:
    assert parse_tool_calls("glm4", text, NAMES) == (text, [])


@given(text=st.text(alphabet="get_weather\n `python\ntool_call(=1){}\"':,", max_size=60))
@pytest.mark.parametrize("generation", GENERATIONS)
def test_no_reply_makes_parsing_fail(generation: str, text: str) -> None:
    for reply in (text, f"get_weather\n ```python\n{text}\n```", f"get_weather\n{{{text}}}"):
        rest, calls = parse_tool_calls(generation, reply, NAMES)

        assert calls or rest == reply


def test_a_lone_surrogate_in_an_argument_is_replaced() -> None:
    assert calls_in("glm4", 'search\n{"q": "\\ud800"}') == [ToolCall("search", {"q": "\ufffd"})]
    assert calls_in("chatglm3", python_call("q='\\ud800'", "search")) == [
        ToolCall("search", {"q": "\ufffd"})
    ]


@pytest.mark.parametrize(
    "text",
    [
        "get_weather\n```python\n" * 40_000,
        "get_weather\n```python\n" * 40_000 + "\n```",
        (python_call("a=b") + "\n") * 20_000,
        "get_weather\n{" * 70_000,
        "\n" * 1_000_000,
        " " * 1_000_000,
    ],
    ids=["unclosed", "closed once", "bad calls", "open braces", "lines", "blanks"],
)
@pytest.mark.parametrize("generation", GENERATIONS)
def test_a_long_hostile_reply_takes_seconds_at_most(generation: str, text: str) -> None:
    started = time.process_time()

    assert calls_in(generation, text) == []
    assert time.process_time() - started < 5


@pytest.mark.parametrize("generation", ["chatglm", "chatglm2"])
def test_the_first_two_generations_have_no_tools(generation: str) -> None:
    assert parse_tool_calls(generation, python_call("a=1"), NAMES) == (python_call("a=1"), [])
    with pytest.raises(ToolCallError, match="cannot call tools"):
        native_tools(generation, [])
    with pytest.raises(ToolCallError, match="cannot call tools"):
        format_tool_call(generation, ToolCall("search", {}))


def test_without_tools_a_reply_is_text() -> None:
    assert parse_tool_calls("glm4", "search\n{}", []) == ("search\n{}", [])
    assert split_metadata("search\n{}", []) == ("", "search\n{}")


@pytest.mark.parametrize("generation", GENERATIONS)
def test_tools_come_in_both_common_forms(generation: str) -> None:
    function = {"name": "search", "description": "查资料", "parameters": {"type": "object"}}

    wrapped = native_tools(generation, [{"type": "function", "function": function | {"strict": 1}}])
    bare = native_tools(generation, [function])

    assert wrapped == bare == [function]
    assert native_tools(generation, [{"name": "now"}]) == [
        {"name": "now", "description": "", "parameters": {"type": "object", "properties": {}}}
    ]


@pytest.mark.parametrize(
    "tools",
    [
        [{}],
        [{"type": "function"}],
        [{"function": "search"}],
        [{"name": ""}],
        [{"name": "a\nb"}],
        [{"name": 3}],
        [{"name": "a", "parameters": {1, 2}}],
        [{"name": "a", "parameters": {"x": float("nan")}}],
        [{"name": "a"}, {"name": "a"}],
    ],
    ids=range(9),
)
def test_a_tool_that_cannot_be_described_is_refused(tools: list[dict[str, Any]]) -> None:
    with pytest.raises(ToolCallError):
        native_tools("glm4", tools)
