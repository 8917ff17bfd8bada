"""Bytes become the right text or a clear refusal, never mojibake."""

import random

import pytest

from ingest.decode import decode
from kb.errors import UndecodableTextError

SIMPLIFIED = (
    "会议纪要\n一、设备每天检查一次，由班长签字确认。\n二、价格：100元。“滤网”编号 LX-FT-08。\n"
)
TRADITIONAL = (
    "會議紀要\n一、設備每天檢查一次，由班長簽字確認。\n二、價格：100元。「濾網」編號 LX-FT-08。\n"
)
GERMAN = "Die schöne Frau hat für 15,50 € Käse gekauft. Größe: 3 m².\n"


@pytest.mark.parametrize(
    "encoding",
    ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "gbk", "gb18030"],
)
def test_the_same_simplified_text_is_read_from_every_encoding(encoding: str) -> None:
    assert decode(SIMPLIFIED.encode(encoding))[0] == SIMPLIFIED


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "gbk", "gb18030", "big5"])
def test_the_same_traditional_text_is_read_from_every_encoding(encoding: str) -> None:
    assert decode(TRADITIONAL.encode(encoding))[0] == TRADITIONAL


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "cp1252"])
def test_the_same_german_text_is_read_from_every_encoding(encoding: str) -> None:
    assert decode(GERMAN.encode(encoding))[0] == GERMAN


@pytest.mark.parametrize(
    ("encoding", "name", "is_guessed"),
    [
        ("utf-8", "utf-8", False),
        ("utf-8-sig", "utf-8", False),
        ("utf-16", "utf-16-le", False),
        ("utf-16-be", "utf-16-be", True),
        ("gbk", "gb18030", True),
    ],
)
def test_what_was_guessed_is_said_so(encoding: str, name: str, is_guessed: bool) -> None:
    assert decode(SIMPLIFIED.encode(encoding))[1:] == (name, is_guessed)
    assert decode(TRADITIONAL.encode("big5"))[1:] == ("big5", True)


@pytest.mark.parametrize(
    "text",
    [
        "你好",
        "会议纪要",
        "价格：100元",
        "联通",
        "一些",
        "使用Python的方法",
        "姓名,年龄\n王建国,35\n",
    ],
)
def test_short_gbk_texts_come_out_right(text: str) -> None:
    assert decode(text.encode("gbk")) == (text, "gb18030", True)


@pytest.mark.parametrize("text", ["你好", "會議紀要", "價格：100元", "台灣"])
def test_short_big5_texts_come_out_right(text: str) -> None:
    assert decode(text.encode("big5")) == (text, "big5", True)


def test_characters_beyond_gbk_are_read() -> None:
    text = "人员名单（含生僻字）\n王𬭎：质量部，工号LX1107。\n李㛃：研发部。\n"

    assert decode(text.encode("gb18030"))[0] == text


@pytest.mark.parametrize(
    "text",
    [
        "können",
        "régime protégé",
        "¿Qué pasó mañana?",
        "don’t – “quoted”",
        "MÜLLER Straße",
        "£100",
        "Übung macht den Meister, élève!",
    ],
)
def test_western_text_is_guessed_where_its_letters_fit_a_language(text: str) -> None:
    assert decode(text.encode("cp1252")) == (text, "cp1252", True)


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("Příliš žluťoučký kůň úpěl", "cp1250"),
        ("Zażółć gęślą jaźń", "cp1250"),
        ("Привет, как дела сегодня", "cp1251"),
        ("Привет, как дела сегодня", "koi8-r"),
        ("こんにちは世界。日本語のテキストです", "cp932"),
        ("こんにちは世界。日本語のテキストです", "euc-jp"),
        ("안녕하세요 세계 한국어 문장입니다", "cp949"),
        ("Ελληνικά κείμενο για δοκιμή", "cp1253"),
    ],
)
def test_encodings_we_cannot_tell_are_refused_not_garbled(text: str, encoding: str) -> None:
    with pytest.raises(UndecodableTextError, match="save the file as UTF-8"):
        decode(text.encode(encoding))


@pytest.mark.parametrize(
    ("text", "encoding", "declared"),
    [
        ("Привет, как дела", "cp1251", "windows-1251"),
        ("こんにちは世界。", "cp932", "Shift_JIS"),
        ("欧阳铎", "gb18030", "gb2312"),
        ("Příliš žluťoučký", "cp1250", "windows-1250"),
        ("können", "cp1252", "iso-8859-1"),
    ],
)
def test_a_declared_encoding_is_believed(text: str, encoding: str, declared: str) -> None:
    found, _, is_guessed = decode(text.encode(encoding), declared=declared)

    assert (found, is_guessed) == (text, False)


@pytest.mark.parametrize("declared", ["gb2312", "big5", "iso-8859-1", "utf-16", "no-such-code", ""])
def test_a_wrong_declaration_does_not_spoil_utf8(declared: str) -> None:
    assert decode(SIMPLIFIED.encode(), declared=declared) == (SIMPLIFIED, "utf-8", False)


def test_a_wrong_declaration_does_not_spoil_big5() -> None:
    assert decode(TRADITIONAL.encode("big5"), declared="gb2312")[0] == TRADITIONAL


@pytest.mark.parametrize("size", [32, 256, 4096])
def test_random_bytes_are_refused(size: int) -> None:
    source = random.Random(size)

    for _ in range(100):
        with pytest.raises(UndecodableTextError):
            decode(source.randbytes(size))


@pytest.mark.parametrize(
    "start", [b"PK\x03\x04\x14\x00\x00\x00", b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR"]
)
def test_binary_content_is_named_so(start: bytes) -> None:
    with pytest.raises(UndecodableTextError, match="binary data"):
        decode(start + bytes(range(256)) * 4)


def test_a_few_nuls_in_utf8_become_line_ends() -> None:
    found, encoding, _ = decode("断电前的日志\0\0\0\0断电后的日志，一切正常。\n".encode())

    assert (found, encoding) == ("断电前的日志\n断电后的日志，一切正常。\n", "utf-8")


def test_many_nuls_are_refused() -> None:
    with pytest.raises(UndecodableTextError):
        decode(b"abc\0\0\0\0\0\0\0" * 10)


def test_a_file_appended_to_in_two_encodings_is_read_by_line() -> None:
    data = "第一行中文内容\n".encode() + "第二行也是中文\n".encode("gbk")

    assert decode(data) == ("第一行中文内容\n第二行也是中文\n", "utf-8+gb18030", True)


def test_a_false_byte_order_mark_is_refused() -> None:
    with pytest.raises(UndecodableTextError, match="UTF-8"):
        decode(b"\xef\xbb\xbf" + "会议纪要".encode("gbk"))


def test_line_ends_become_newlines_and_marks_go() -> None:
    text = "\ufeff一\r\n二\r三\ufeff\n\t四\x0c\n"

    assert decode(text.encode())[0] == "一\n二\n三\n\t四\x0c\n"


def test_nothing_is_empty_text() -> None:
    assert decode(b"") == ("", "utf-8", False)
    assert decode(b"\xff\xfe") == ("", "utf-16-le", False)
