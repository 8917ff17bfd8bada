"""The documentation tells the truth: commands run, settings exist, files are where it says."""

import re
import shlex
from pathlib import Path

import click
import pytest
from fastapi.testclient import TestClient

from api.app import create_app
from ingest.fake import FakeEmbedder
from kb.cli.edge import Edge
from kb.cli.main import cli, run
from kb.config import Settings
from kb.wiring import Services

ROOT = Path(__file__).resolve().parents[1]
READMES = ("README.md", "README.zh.md")
DOCUMENTS = (*READMES, "CONTRIBUTING.md", "benchmarks/README.md", "ARCHITECTURE.md")

# Commands that serve, measure for minutes, or need a server: they are parsed, not run.
PARSED_ONLY = ("serve", "bench", "eval")


def read(document: str) -> str:
    return (ROOT / document).read_text(encoding="utf-8")


def console_lines(document: str) -> list[str]:
    """Return what a reader would type: the lines of console blocks that start with "$ "."""
    blocks = re.findall(r"^```console\n(.*?)^```", read(document), re.DOTALL | re.MULTILINE)
    lines = [line for block in blocks for line in block.splitlines()]
    return [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]


def kb_commands(document: str) -> list[list[str]]:
    """Return the arguments of each ``kb`` command, in console blocks and in the text."""
    typed = [line for line in console_lines(document) if re.match(r"(time )?kb ", line)]
    inline = re.findall(r"`(kb [^`]+)`", read(document))
    commands = [line.removeprefix("time ") for line in (*typed, *inline)]
    return [shlex.split(command, comments=True)[1:] for command in commands]


def find_command(arguments: list[str]) -> tuple[click.Command, list[str]]:
    """Follow groups to the command that `arguments` name; return it and what is left."""
    command: click.Command = cli
    rest = list(arguments)
    while isinstance(command, click.Group) and rest and not rest[0].startswith("-"):
        name = rest.pop(0)
        found = command.get_command(click.Context(command, info_name=name), name)
        assert found is not None, f"there is no command `kb {' '.join(arguments)}`"
        command = found
    return command, rest


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_kb_command_exists_with_its_options(document: str) -> None:
    for arguments in kb_commands(document):
        command, rest = find_command(arguments)

        options = {name for p in command.params for name in (*p.opts, *p.secondary_opts)}
        options |= {"--help", "-h"}
        unknown = [word for word in rest if word.startswith("-") and word not in options]
        assert not unknown, f"`kb {' '.join(arguments)}` has no {unknown}"


def test_the_commands_of_the_first_screen_run(home: Path) -> None:
    services = Services.open(Settings(home=home), embedder=FakeEmbedder())
    commands = [
        shlex.split(line)[1:] for line in console_lines("README.md") if line.startswith("kb ")
    ]
    ran = [arguments for arguments in commands if arguments[0] not in PARSED_ONLY]

    with services:
        statuses = {" ".join(one): run(one, edge=Edge({}, services)) for one in ran}

    assert len(statuses) >= 3
    assert set(statuses.values()) == {0}, statuses


def test_the_curl_calls_are_answered(home: Path) -> None:
    calls = [line for line in console_lines("README.md") if line.startswith("curl ")]
    with Services.open(Settings(home=home), embedder=FakeEmbedder()) as services:
        services.create_base("demo")
        client = TestClient(create_app(services))

        statuses = [send(client, shlex.split(call)[1:]) for call in calls]

    assert statuses == [202, 200, 200]


@pytest.mark.slow
def test_the_first_screen_shows_what_the_commands_print(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The transcript is stdout; a line of only "…" stands for lines left out.

    When this fails because answers have changed for good, paste the output of `make demo`.
    """
    shown = [block for block in transcript() if block[0].split()[2:3] in (["ingest"], ["ask"])]

    for command, *lines in shown:
        assert run(["--home", str(home), *shlex.split(command)[2:]]) == 0
        printed = normalised(capsys.readouterr().out)

        parts = "\n".join(lines).strip().split("\n  …")
        expected = ".*".join(re.escape(normalised(part)) for part in parts)
        assert re.fullmatch(expected, printed, re.DOTALL), printed
    assert len(shown) == 4


def transcript() -> list[list[str]]:
    """Return the first console block as commands, each with the lines printed below it."""
    block = re.search(r"^```console\n(.*?)^```", read("README.md"), re.DOTALL | re.MULTILINE)
    assert block is not None
    commands: list[list[str]] = []
    for line in block[1].splitlines():
        if line.startswith("$ "):
            commands.append([line])
        else:
            commands[-1].append(line)
    return commands


def normalised(text: str) -> str:
    return re.sub(r"in \d+\.\d s", "in 0.0 s", text).strip()


def send(client: TestClient, arguments: list[str]) -> int:
    """Do what ``curl`` would do with these arguments; return the status."""
    headers, content, files = {}, None, []
    url = arguments.pop()
    for option, value in zip(arguments[::2], arguments[1::2], strict=True):
        if option == "-H":
            name, _, text = value.partition(": ")
            headers[name] = text
        elif option == "-d":
            content = value
        else:
            assert option == "-F"
            field, _, path = value.partition("=@")
            files.append((field, (Path(path).name, (ROOT / path).read_bytes())))
    method = "POST" if content or files else "GET"
    reply = client.request(method, url, headers=headers, content=content, files=files or None)
    return reply.status_code


def test_both_readmes_show_the_same_commands() -> None:
    english, chinese = (console_lines(document) for document in READMES)

    assert english == chinese


def test_both_readmes_have_the_same_sections() -> None:
    english, chinese = (re.findall(r"^#+ ", read(document), re.MULTILINE) for document in READMES)

    assert english == chinese


def test_both_readmes_show_the_same_transcript() -> None:
    english, chinese = (
        re.findall(r"^```console\n(.*?)^```", read(document), re.DOTALL | re.MULTILINE)
        for document in READMES
    )

    assert english == chinese


@pytest.mark.parametrize("document", READMES)
def test_every_setting_is_documented_with_its_default(document: str) -> None:
    rows = dict(re.findall(r"^\| `KB_([A-Z_]+)` \| ([^|]+) \| [^|]+ \|$", read(document), re.M))

    assert [name.lower() for name in rows] == list(Settings.model_fields)
    for name, field in Settings.model_fields.items():
        if field.default_factory is None and field.default not in (None, "", ()):
            assert rows[name.upper()] == f"`{field.default}`", name


def test_the_english_readme_describes_settings_in_their_own_words() -> None:
    rows = dict(re.findall(r"^\| `KB_([A-Z_]+)` \| [^|]+ \| ([^|]+) \|$", read("README.md"), re.M))

    for name, field in Settings.model_fields.items():
        assert rows[name.upper()] == (field.description or "").rstrip("."), name


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_file_that_is_named_exists(document: str) -> None:
    text = read(document)
    named = re.findall(r"`((?:kb|ingest|api|webui|llm|tests|examples|benchmarks)/[\w./-]*)`", text)
    linked = re.findall(r"\]\(([^)#:]+)\)", text)
    folder = (ROOT / document).parent

    missing = [name for name in named if "FORMAT" not in name and not (ROOT / name).exists()]
    missing += [name for name in linked if not (folder / name).exists()]

    assert not missing


@pytest.mark.parametrize("document", READMES)
def test_the_file_tree_names_what_is_there(document: str) -> None:
    tree = re.search(r"^```text\n(.*?)^```", read(document), re.DOTALL | re.MULTILINE)
    assert tree is not None
    parent = Path()

    for line in tree[1].splitlines():
        name = line.split()[0]
        if not line.startswith(" "):
            parent = ROOT / name
            assert parent.is_dir(), line
        else:
            assert (parent / name).exists(), line


@pytest.mark.parametrize("document", [*READMES, "CONTRIBUTING.md"])
def test_every_make_target_exists(document: str) -> None:
    targets = set(re.findall(r"^([a-z]+):", read("Makefile"), re.MULTILINE))
    used = set(re.findall(r"(?:^|`|\$ | )make ([a-z]+)", read(document), re.MULTILINE))

    assert used & targets
    # "make it", "make one": words after the verb that are no command.
    commands = set(re.findall(r"(?:`|\$ |^    )make ([a-z]+)", read(document), re.MULTILINE))
    assert commands <= targets


def test_make_alone_lists_every_target() -> None:
    makefile = read("Makefile")
    phony = re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    assert phony is not None
    helped = set(re.findall(r"^([a-z]+):.*## ", makefile, re.MULTILINE))

    assert helped == set(phony[1].split()) - {"help", "lint", "browser"}
