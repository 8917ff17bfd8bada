"""Follow-ups become questions that name what they are about; other questions stay as they are.

The dialogues are written by hand. What is expected is what retrieval needs: words that must be in
the rewritten question, and words that must not be there any more.
"""

import pytest
from langchain_core.messages import BaseMessage

from kb.errors import AnswererError
from kb.questions.rewrite import is_faithful, self_contained
from kb.records import Turn

BRIDGE = ("武汉长江大桥是哪一年建成的？", "武汉长江大桥于1957年建成通车。[1]")
STRAUSS = ("Who designed the Golden Gate Bridge?", "Joseph Strauss")
LEAVE = ("员工每年有几天年假？", "员工每年享有 12 天带薪年假。[1]")
PUMP = (
    "How often is the cooling pump serviced?",
    "The cooling pump is serviced every 400 hours. [1]",
)
HOTEL = ("一线城市的住宿标准是多少？", "一线城市每晚不超过 500 元。[1]")
BERLIN = ("What is the population of Berlin?", "Berlin has 3.7 million inhabitants. [1]")

# (earlier turns, follow-up, words that must be there, words that must be gone)
DIALOGUES = [
    ([BRIDGE], "它有多长？", ["武汉长江大桥", "多长"], ["它"]),
    ([BRIDGE], "这座桥是谁设计的？", ["武汉长江大桥", "谁设计"], []),
    ([BRIDGE], "谁设计的？", ["武汉长江大桥", "设计"], []),
    ([BRIDGE], "那里有博物馆吗？", ["武汉长江大桥", "博物馆"], ["那里"]),
    ([BRIDGE], "该桥的总投资是多少？", ["武汉长江大桥", "总投资"], []),
    ([BRIDGE], "其全长是多少？", ["武汉长江大桥", "全长"], []),
    ([BRIDGE], "为什么？", ["武汉长江大桥", "为什么"], []),
    ([BRIDGE], "那南京长江大桥呢？", ["南京长江大桥", "哪一年建成"], ["武汉"]),
    ([BRIDGE], "有多长？", ["武汉长江大桥", "多长"], []),
    ([LEAVE], "病假呢？", ["病假", "几天"], ["年假"]),
    ([LEAVE], "需要提前多久申请？", ["年假", "提前", "申请"], []),
    ([LEAVE], "如果超过了怎么办？", ["年假", "超过"], []),
    ([LEAVE], "有没有例外？", ["年假", "例外"], []),
    ([LEAVE], "那怎么申请？", ["年假", "申请"], []),
    ([HOTEL], "那二线城市呢？", ["二线城市", "住宿标准"], ["一线"]),
    (
        [("出差住宿标准是多少？", "每晚不超过 500 元。[1]")],
        "那经理呢？",
        ["经理", "出差住宿标准"],
        [],
    ),
    ([HOTEL], "依据是什么？", ["住宿标准", "依据"], []),
    ([("上海的人口是多少？", "约 2487 万。")], "那杭州呢？", ["杭州", "人口"], ["上海"]),
    ([("上海的人口是多少？", "约 2487 万。")], "它的面积呢？", ["上海", "面积"], ["人口", "它"]),
    ([("公司2021年的营收是多少？", "3 亿元。")], "2022年呢？", ["2022年", "营收"], ["2021"]),
    ([("谁发明了电话？", "贝尔。")], "他出生在哪里？", ["贝尔", "出生"], ["他"]),
    (
        [("除霜有几种方法？", "有两种：热气除霜和自然除霜。[1]")],
        "第二种要多久？",
        ["除霜", "第二种"],
        [],
    ),
    ([("哪种滤芯适合A型机？", "HX-20")], "它多久更换一次？", ["HX-20", "更换"], ["它"]),
    ([BRIDGE, ("它有多长？", "全桥长 1670 米。")], "谁设计的？", ["武汉长江大桥", "设计"], []),
    (
        [("武漢長江大橋是哪一年建成的？", "1957年。")],
        "它有多長？",
        ["武漢長江大橋", "多長"],
        ["它"],
    ),
    (
        [("這台機器怎麼保養？空壓機的保養週期是多久？", "每月。")],
        "為什麼？",
        ["空壓機", "為什麼"],
        [],
    ),
    ([PUMP], "How long does it take?", ["cooling pump", "How long"], [" it "]),
    ([PUMP], "Who does it?", ["cooling pump", "Who"], []),
    ([PUMP], "Why?", ["cooling pump", "why"], []),
    ([PUMP], "What about the feed pump?", ["feed pump", "serviced"], ["cooling"]),
    ([PUMP], "Where are its spare parts kept?", ["cooling pump's", "spare parts"], [" its "]),
    ([PUMP], "Are there any exceptions?", ["cooling pump", "exceptions"], []),
    ([BERLIN], "And Munich?", ["Munich", "population"], ["Berlin"]),
    ([BERLIN], "How about Hamburg?", ["Hamburg", "population"], ["Berlin"]),
    ([BERLIN], "What is its area?", ["Berlin's", "area"], [" its "]),
    ([BERLIN], "Who lives there?", ["Berlin", "lives"], ["there"]),
    (
        [("How many visitors came to the museum in 2021?", "40,000.")],
        "And in 2022?",
        ["2022", "visitors", "museum"],
        ["2021"],
    ),
    (
        [("How many days of annual leave do employees get?", "12 days.")],
        "What about sick leave?",
        ["sick leave", "How many days"],
        ["annual"],
    ),
    ([STRAUSS], "Where was he born?", ["Joseph Strauss", "born"], [" he "]),
    ([STRAUSS], "How long is that bridge?", ["bridge (", "How long"], []),
    (
        [("Which river flows through Cologne?", "The Rhine")],
        "How long is it?",
        ["The Rhine"],
        [" it"],
    ),
    (
        [("When does the warranty of the X200 expire?", "After two years.")],
        "Can it be extended?",
        ["X200", "extended"],
        [" it "],
    ),
    (
        [("What does the travel policy say about taxis?", "They are refunded.")],
        "when?",
        ["travel policy", "when"],
        [],
    ),
]

SELF_CONTAINED = [
    "员工每年有几天年假？",
    "这里的空调怎么使用遥控器设置温度26度的定时功能？",
    "谁写了《它》这部小说？",
    "爱因斯坦和他的妻子是哪年结婚的？",
    "其他部门的报销流程是什么？",
    "什么是量子纠缠？",
    "如何重置路由器的管理员密码？",
    "第二次世界大战是什么时候结束的？",
    "应该先关闭哪个阀门？",
    "祭遵的家庭状况怎么样？",
    "吉他的琴弦多久换一次？",
    "How long does it take to charge the battery of the drill?",
    "Is it true that the museum is free on Mondays?",
    "What did Tesla do when he left Edison's company?",
    "Who was the first chair of the committee?",
    "Who said that the reactor was safe?",
    "Do employees lose their annual leave?",
    "When the pump fails, who repairs it?",
    "How many people live in Berlin?",
    "What happens to the deposit this year?",
]


def turns(earlier: list[tuple[str, str]]) -> list[Turn]:
    return [Turn(question, answer) for question, answer in earlier]


@pytest.mark.parametrize(("earlier", "asked", "there", "gone"), DIALOGUES)
def test_a_follow_up_names_what_it_is_about(
    earlier: list[tuple[str, str]], asked: str, there: list[str], gone: list[str]
) -> None:
    rewritten = self_contained(asked, turns(earlier))

    assert [word for word in there if word not in rewritten] == [], rewritten
    assert [word for word in gone if word in rewritten] == [], rewritten


@pytest.mark.parametrize("question", SELF_CONTAINED)
@pytest.mark.parametrize("before", [BRIDGE, PUMP])
def test_a_question_that_names_its_subject_stays(question: str, before: tuple[str, str]) -> None:
    assert self_contained(question, turns([before])) == question


@pytest.mark.parametrize("asked", [case[1] for case in DIALOGUES])
def test_without_history_nothing_changes(asked: str) -> None:
    assert self_contained(asked, []) == asked


@pytest.mark.parametrize(
    "question",
    ["？？？", "…", "呢？", "it", "他", "\u202e为什么\u202c", "<|user|> why?", "a" * 9000],
)
def test_odd_questions_do_no_harm(question: str) -> None:
    assert self_contained(question, turns([BRIDGE]))
    assert self_contained("那杭州呢？", turns([(question, question)]))


class Model:
    """Replies with one text and counts how often it was asked."""

    def __init__(self, reply: str) -> None:
        self.reply = reply
        self.prompts: list[str] = []

    def __call__(self, messages: list[BaseMessage], max_tokens: int) -> str:
        self.prompts.append(messages[-1].text)
        return self.reply


def test_a_chat_model_words_the_question() -> None:
    model = Model("“武汉长江大桥有多长？”")

    assert self_contained("它有多长？", turns([BRIDGE]), complete=model) == "武汉长江大桥有多长？"
    assert "它有多长？" in model.prompts[0]
    assert "[1]" not in model.prompts[0]


def test_the_model_is_not_asked_about_a_question_that_needs_no_history() -> None:
    model = Model("something else")

    self_contained("员工每年有几天年假？", turns([BRIDGE]), complete=model)

    assert model.prompts == []


@pytest.mark.parametrize(
    "reply",
    [
        "",
        "武汉长江大桥全长1670米。",  # an answer: a number from nowhere
        "茅以升设计的钱塘江大桥有多长？",  # another subject
        "武汉长江大桥\n有多长？",
        "年假？" * 200,
    ],
)
def test_a_model_that_drifts_is_not_followed(reply: str) -> None:
    rewritten = self_contained("它有多长？", turns([BRIDGE]), complete=Model(reply))

    assert rewritten == "武汉长江大桥有多长？"


def test_a_model_that_fails_costs_nothing() -> None:
    def fail(messages: list[BaseMessage], max_tokens: int) -> str:
        raise AnswererError("gone")

    assert self_contained("它有多长？", turns([BRIDGE]), complete=fail) == "武汉长江大桥有多长？"


def test_a_faithful_wording_keeps_half_of_the_words() -> None:
    history = turns([PUMP])
    assert is_faithful(
        "How long does servicing the cooling pump take?", "How long does it take?", history
    )
    assert not is_faithful(
        "How often is the pump serviced?", "Which spare parts are kept?", history
    )


@pytest.mark.parametrize("word", ["所以", "但是", "另外", "嗯", "好的", "那么", "那但是", "然后"])
def test_a_word_that_only_leads_asks_the_question_before_again(word: str) -> None:
    rewritten = self_contained(f"{word}呢？", turns([HOTEL]))

    assert rewritten is None or HOTEL[0].rstrip("？") in rewritten


@pytest.mark.parametrize(
    ("before", "answer", "question", "wrong"),
    [
        ("Who owns the bridge?", "Acme Corp", "When was it built?", "Acme"),
        ("谁设计了朱雀七号反应堆？", "欧阳雪晴", "它有多重？", "欧阳"),
    ],
)
def test_a_thing_is_not_the_person_who_was_asked_for(
    before: str, answer: str, question: str, wrong: str
) -> None:
    rewritten = self_contained(question, [Turn(before, answer, short=answer)])

    assert rewritten is None or wrong not in rewritten
