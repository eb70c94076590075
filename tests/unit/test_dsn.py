"""Notifications: the rules of NOTIFY and RET, and their bytes against tests/golden/dsn (UPDATE_GOLDEN=1 writes them anew)."""

import email
import email.policy
import os
from dataclasses import replace
from email.message import EmailMessage
from pathlib import Path

import pytest

from postrail.core.dsn import FULL_LIMIT_BYTES, Action, Notice, Original, RecipientStatus, Report, build, wanted
from postrail.core.records import Envelope, Lane, MessageId, Notify, Recipient
from postrail.core.replies import Reply

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "dsn"
HEADERS = b"From: Ann <ann@sender.example>\r\nTo: bob@rcpt.example\r\nSubject: Hello\r\n"
ENVELOPE = Envelope(
    message_id=MessageId("01hzzzzzzzzzzzzzzzzzzzzzzz"),
    reverse_path="ann@sender.example",
    recipients=(Recipient("bob@rcpt.example"),),
    submitter="shop",
    stream="transactional",
    lane=Lane.URGENT,
    received_at=1_750_000_000.0,
    expires_at=1_750_432_000.0,
    size_bytes=1234,
    envid="order-77",
    header_message_id="hello@sender.example",
)
REPORT = Report(MessageId("01j00000000000000000000000"), "mx.sender.example", 1_750_000_100.0, 1_750_000_090.0)
UNKNOWN = Reply(550, "5.1.1", "No such user")


def failed(address: str = "bob@rcpt.example", notify: Notify = Notify.ABSENT, orcpt: str = "") -> RecipientStatus:
    return RecipientStatus(Recipient(address, notify, orcpt), Action.FAILED, "5.1.1", UNKNOWN, "mx1.rcpt.example")


def built(statuses: list[RecipientStatus], original: Original | None = None, report: Report = REPORT) -> Notice:
    notice = build(original or Original(ENVELOPE, HEADERS), statuses, report)
    assert notice is not None
    return notice


def content(notice: Notice) -> bytes:
    return notice.message.header_block + b"\r\n" + notice.body


def parsed(notice: Notice) -> EmailMessage:
    message = email.message_from_bytes(content(notice), policy=email.policy.SMTPUTF8)
    assert not message.defects
    return message


def golden(name: str, notice: Notice) -> None:
    path = GOLDEN / f"{name}.eml"
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_bytes(content(notice))
    assert content(notice) == path.read_bytes(), f"{name} changed; look at it, then run with UPDATE_GOLDEN=1"


@pytest.mark.parametrize(
    ("notify", "actions"),
    [
        (Notify.ABSENT, {Action.FAILED}),
        (Notify.NEVER, set()),
        (Notify.FAILURE, {Action.FAILED}),
        (Notify.DELAY, {Action.DELAYED}),
        (Notify.SUCCESS, {Action.DELIVERED, Action.RELAYED}),
        (Notify.SUCCESS | Notify.FAILURE | Notify.DELAY, set(Action)),
    ],
)
def test_notify_decides_who_hears_of_what(notify: Notify, actions: set[Action]) -> None:
    assert {action for action in Action if wanted(Recipient("a@b.c", notify), action)} == actions


def test_null_reverse_path_hears_nothing() -> None:
    assert build(Original(replace(ENVELOPE, reverse_path=""), HEADERS), [failed()], REPORT) is None


def test_nobody_wants_it() -> None:
    assert build(Original(ENVELOPE, HEADERS), [failed(notify=Notify.NEVER)], REPORT) is None


def test_report_comes_from_the_null_reverse_path_and_goes_to_the_sender() -> None:
    notice = built([failed()])
    envelope = notice.message.envelope
    assert (envelope.reverse_path, envelope.submitter) == ("", "")
    assert [recipient.address for recipient in envelope.recipients] == ["ann@sender.example"]
    assert envelope.expires_at - envelope.received_at == 432_000.0
    assert envelope.size_bytes == len(content(notice))
    message = parsed(notice)
    assert message["Auto-Submitted"] == "auto-replied"
    assert message["In-Reply-To"] == "<hello@sender.example>"
    assert message.get_content_type() == "multipart/report"
    assert message.get_param("report-type") == "delivery-status"
    assert [part.get_content_type() for part in message.iter_parts()] == [
        "text/plain",
        "message/delivery-status",
        "text/rfc822-headers",
    ]


def test_failures_of_several_recipients_in_one_report() -> None:
    full = RecipientStatus(
        Recipient("eve@rcpt.example", Notify.FAILURE, "rfc822;Eve@Old.Example"),
        Action.FAILED,
        "5.4.7",
        Reply(452, "4.2.2", "Mailbox full"),
        "mx2.rcpt.example",
    )
    ours = RecipientStatus(
        Recipient("x@nowhere.example"), Action.FAILED, "5.1.2", Reply(550, "5.1.2", "The domain does not exist")
    )
    golden("failed", built([failed(), full, ours, failed("silent@rcpt.example", Notify.NEVER)]))


def test_delay() -> None:
    status = RecipientStatus(
        Recipient("bob@rcpt.example", Notify.DELAY), Action.DELAYED, "4.4.1", Reply(451, "4.4.1", "No answer")
    )
    golden("delayed", built([status], report=replace(REPORT, will_retry_until=ENVELOPE.expires_at)))


def test_relayed() -> None:
    status = RecipientStatus(
        Recipient("bob@rcpt.example", Notify.SUCCESS),
        Action.RELAYED,
        "2.0.0",
        Reply(250, "2.0.0", "OK"),
        "mx1.rcpt.example",
    )
    golden("relayed", built([status]))


def test_international_addresses_need_smtputf8_only_where_the_sender_has_one() -> None:
    umlaut = RecipientStatus(
        Recipient("jürgen@rcpt.example", Notify.ABSENT, "utf-8;jürgen@alt.example"),
        Action.FAILED,
        "5.1.1",
        UNKNOWN,
        "mx1",
    )
    envelope = replace(ENVELOPE, smtputf8=True)
    golden("international", built([umlaut], Original(envelope, HEADERS.replace(b"bob", "jürgen".encode()))))
    ascii_only = built([umlaut], Original(ENVELOPE, HEADERS))
    assert ascii_only.message.envelope.smtputf8 is False
    assert content(ascii_only).isascii()
    assert rb"utf-8; j\x{FC}rgen@rcpt.example" in ascii_only.body


def test_whole_message_only_when_asked_for_and_small() -> None:
    asked = replace(ENVELOPE, ret="FULL")
    notice = built([failed()], Original(asked, HEADERS, b"The body.\r\n"))
    golden("full", notice)
    for original in (
        Original(asked, HEADERS, None),
        Original(asked, HEADERS, b"x" * FULL_LIMIT_BYTES),
        Original(replace(ENVELOPE, ret="HDRS"), HEADERS, b"The body.\r\n"),
        Original(ENVELOPE, HEADERS, b"The body.\r\n"),
    ):
        assert b"Content-Type: text/rfc822-headers" in built([failed()], original).body


def test_eight_bit_headers_are_quoted() -> None:
    notice = built([failed()], Original(ENVELOPE, "Subject: Grüße\r\n".encode("latin-1")))
    assert content(notice).isascii()
    assert notice.message.envelope.eight_bit is False
    assert b"Subject: Gr=FC=DFe\r\n" in notice.body


def test_eight_bit_body_asks_for_8bitmime() -> None:
    original = Original(replace(ENVELOPE, ret="FULL"), HEADERS, "Grüße\r\n".encode())
    assert built([failed()], original).message.envelope.eight_bit is True


@pytest.mark.parametrize("evil", ["x\r\nBcc: y", "x\n--b", "x\ry", "x\0y", "x\u2028y", "y" * 5000])
def test_what_strangers_wrote_breaks_no_line(evil: str) -> None:
    status = RecipientStatus(
        Recipient(f"{evil}@rcpt.example", Notify.ABSENT, f"rfc822;{evil}"),
        Action.FAILED,
        "5.1.1",
        Reply(550, "", evil),
        evil,
    )
    envelope = replace(ENVELOPE, envid=evil, header_message_id=evil)
    notice = built([status], Original(envelope, HEADERS))
    bare = content(notice).replace(b"\r\n", b"")
    assert b"\r" not in bare
    assert b"\n" not in bare
    assert b"\0" not in bare
    assert max(map(len, content(notice).split(b"\r\n"))) <= 998
    assert len(list(parsed(notice).iter_parts())) == 3
    assert parsed(notice)["Bcc"] is None
