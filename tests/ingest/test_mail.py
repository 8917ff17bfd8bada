"""Mails of both formats: head, text in the right form and encoding, attachments, mails inside."""

from dataclasses import replace
from email.message import EmailMessage

import pytest

from ingest.loaders import load_bytes
from kb.errors import CorruptFileError, EncryptedFileError
from tests.ingest.files_samples import LIMITS, pdf, zip_of
from tests.ingest.loading import load, titles
from tests.ingest.office_samples import OLE, compound_file, msg


def mail(subject: str = "报修", text: str = "设备报 E37。") -> EmailMessage:
    message = EmailMessage()
    message["Subject"] = subject
    message["From"] = "孟知远 <meng@example.com>"
    message["To"] = "support@example.com"
    message["Date"] = "Mon, 18 Sep 2023 10:05:33 +0800"
    message.set_content(text)
    return message


def test_a_mail_is_its_head_and_text() -> None:
    loaded = load(mail().as_bytes(), "报修.eml")

    assert loaded.text == (
        "报修\n\nFrom: 孟知远 <meng@example.com>\nTo: support@example.com\n"
        "Date: Mon, 18 Sep 2023 10:05:33 +0800\n\n设备报 E37。"
    )
    assert titles(loaded) == [(1, "报修")]


def test_attachments_are_read_by_their_names_and_failures_noted() -> None:
    message = mail()
    message.add_attachment(
        "# 记录\n室温 26.5 度。".encode("gbk"),
        maintype="application",
        subtype="octet-stream",
        filename="现场记录.md",
    )
    message.add_attachment(
        pdf([["第一页"]]), maintype="application", subtype="pdf", filename="a.pdf"
    )
    message.add_attachment(
        zip_of({"a": b""}), maintype="application", subtype="zip", filename="b.zip"
    )
    message.add_attachment(b"%PDF-broken", maintype="application", subtype="pdf", filename="c.pdf")

    loaded = load(message.as_bytes(), "a.eml")

    assert titles(loaded) == [(1, "报修"), (2, "现场记录.md"), (3, "记录"), (2, "a.pdf")]
    assert "\n\n现场记录.md\n\n# 记录\n室温 26.5 度。\n\na.pdf\n\n第一页" in loaded.text
    assert [note.split(" is not read")[0] for note in loaded.notes] == [
        "attachment 'b.zip'",
        "attachment 'c.pdf'",
    ]


def test_the_plain_form_is_taken_unless_it_is_blank() -> None:
    both = mail(text="plain form")
    both.add_alternative("<p>html form</p>", subtype="html")
    blank = mail(text=" ")
    blank.add_alternative("<h2>标题</h2><p>html form</p>", subtype="html")

    assert load(both.as_bytes(), "a.eml").text.endswith("\n\nplain form")
    assert load(blank.as_bytes(), "a.eml").text.endswith("\n\n标题\n\nhtml form")
    assert titles(load(blank.as_bytes(), "a.eml")) == [(1, "报修"), (3, "标题")]


def test_mails_inside_mails_are_read_to_a_depth() -> None:
    message = mail("0", "level 0")
    for level in range(1, 6):
        outer = mail(str(level), f"level {level}")
        outer.add_attachment(message)
        message = outer

    loaded = load(message.as_bytes(), "a.eml")

    assert titles(loaded) == [(1, "5"), (2, "4"), (3, "3"), (4, "2")]
    assert loaded.notes == ("mails inside mails are nested too deeply; some are not read",)
    assert "level 2" in loaded.text


def test_a_mail_attached_as_a_file_counts_as_one_inside() -> None:
    message = mail("0", "level 0")
    for level in range(1, 6):
        outer = mail(str(level), f"level {level}")
        data = message.as_bytes()
        outer.add_attachment(data, maintype="application", subtype="x", filename="inner.eml")
        message = outer

    loaded = load(message.as_bytes(), "a.eml")

    assert "level 2" in loaded.text
    assert "level 1" not in loaded.text
    assert any("nested too deeply" in note for note in loaded.notes)


@pytest.mark.parametrize("charset", ["gb2312", "x-unknown", "utf-8"])
def test_raw_bytes_and_wrong_labels_are_decoded(charset: str) -> None:
    head = "Subject: 会议通知\nFrom: 张三 <a@b.c>\nContent-Type: text/plain; charset=".encode("gbk")
    body = "\n\n明天上午九点开会，请各部门负责人准时参加。".encode("gbk")

    loaded = load(head + charset.encode() + body, "a.eml")

    assert "From: 张三 <a@b.c>" in loaded.text
    assert loaded.text.startswith("会议通知")
    assert loaded.text.endswith("请各部门负责人准时参加。")


def test_encoded_subjects_and_file_names_are_decoded() -> None:
    source = (
        "Subject: =?gb2312?B?u+HS6Q==?= =?utf-8?B?6YCa55+l?=\nMIME-Version: 1.0\n"
        'Content-Type: multipart/mixed; boundary="x"\n\n--x\n'
        'Content-Type: text/plain; name="=?utf-8?B?6ZmE5Lu2LnR4dA==?="\n'
        "Content-Disposition: attachment\n\nattached\n--x--\n"
    )
    assert load(source, "a.eml").text == "会议通知\n\n附件.txt\n\nattached"


def test_a_mail_that_says_nothing_is_empty() -> None:
    assert load("From: a@b.c\nTo: d@e.f\n\n", "a.eml").text == ""
    assert load("   \n\n  \n", "a.eml").text == ""


def test_an_encrypted_mail_is_named_so() -> None:
    with pytest.raises(EncryptedFileError, match="encrypted"):
        load("From: a@b.c\nContent-Type: multipart/encrypted; boundary=x\n\n--x--", "a.eml")


def test_text_that_is_no_mail_is_refused() -> None:
    with pytest.raises(CorruptFileError, match="not a mail"):
        load("just some text\n\nand more", "a.eml")


def wide(text: str) -> bytes:
    return text.encode("utf-16-le")


def test_outlook_messages_are_read_with_attachments() -> None:
    attached = "现场情况记录，共一页。\n" * 400  # long: see compound_file
    data = msg(
        {
            "0037001F": wide("报修"),
            "0C1A001F": wide("孟知远"),
            "5D01001F": wide("meng@example.com"),
            "0E04001E": "售后".encode("gbk"),
            "1000001F": wide("设备报 E37。\r\n请来人。"),
        },
        [
            {"3707001F": wide("记录.txt"), "37010102": attached.encode()},
            {"3704001F": wide("x.zip"), "37010102": zip_of({"a": b"b"})},
        ],
    )
    loaded = load(data, "报修.msg")

    assert loaded.text.startswith(
        "报修\n\nFrom: 孟知远 <meng@example.com>\nTo: 售后\nDate: 2023-11-15 08:00 UTC\n\n"
        "设备报 E37。\n请来人。\n\n记录.txt\n\n现场情况记录"
    )
    assert titles(loaded) == [(1, "报修"), (2, "记录.txt")]
    assert "'x.zip' is not read" in loaded.notes[0]


def test_outlook_text_may_be_html_or_compressed_rtf() -> None:
    page = msg({"0037001F": wide("s"), "10130102": b"<meta charset=gbk><p>" + "价格".encode("gbk")})
    # The example of MS-OXRTFCP, section 3.1.1.
    packed = bytes.fromhex(
        "2d0000002b0000004c5a4675f1c5c7a703000a0072637067313235423"
        "20af32068656c090020627705b06c647d0a800fa0"
    )
    rtf = msg({"0037001F": wide("s"), "10090102": packed})

    assert load(page, "a.msg").text.endswith("\n\n价格")
    assert load(rtf, "a.msg").text.endswith("\n\nhello world")


def test_bad_outlook_messages_say_why() -> None:
    with pytest.raises(CorruptFileError, match="not an Outlook message"):
        load("From: a", "a.msg")
    with pytest.raises(CorruptFileError, match="old Office document"):
        load(compound_file({"WordDocument": b"x"}), "a.msg")
    with pytest.raises(CorruptFileError, match="damaged"):
        load(OLE + bytes(600), "a.msg")


def test_an_attachment_too_large_is_noted() -> None:
    message = mail()
    message.add_attachment(b"x" * 2_000_000, maintype="text", subtype="x", filename="big.txt")

    loaded = load_bytes(message.as_bytes(), "a.eml", replace(LIMITS, max_file_mb=1))

    assert loaded.notes == ("attachment 'big.txt' is not read: it is larger than 1 MB",)
