"""Faults 21 to 24: smuggled ends of data, text pipelined into TLS, line breaks in what we add, relaying; the whole system.

The replies to single commands are in test_submission_refuses; here what counts is what reaches a receiver.
"""

from __future__ import annotations

import asyncio
import base64
import socket
import ssl
from collections.abc import AsyncIterator
from hashlib import sha256

import pytest
import pytest_asyncio

from postrail.core.records import EventType
from postrail.demo.receivers import Behaviour, Session
from tests.support.fault_client import ANSWER_SECONDS, Client
from tests.support.fault_configuration import SENDER, STRANGERS, SUBMISSION, TRUSTED
from tests.support.fault_world import FaultWorld, Place, fault_world
from tests.support.ingress import client_context
from tests.support.messages import header_of, read_report

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world() -> AsyncIterator[FaultWorld]:
    async with fault_world(ingress={"limits": {"auth_failure_delay_seconds": 0.01}}) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def place(world: FaultWorld) -> Place:
    return await world.place()


def mail_of(place: Place, ledger_id: str) -> list[bytes]:
    """What the receiver took that names the ledger id anywhere."""
    return [message.content for message in place.mail if ledger_id.encode() in message.content]


async def accepted(world: FaultWorld) -> float:
    """How many messages the system has said 250 to."""
    return await world.metric("postrail_ingress_messages_accepted_total")


# 21: ends of data that are none

FALSE_ENDS = [
    b"\n.\n", b"\r.\r", b"\r\n.\n", b"\n.\r\n", b"\r\n.\r", b"\r.\r\n", b"\n.\r", b"\r.\n", b"\r\r\n.\r\r\n", b"\n\n.\n\n",
    b"\r\n\0.\r\n", b"\r\n.\0\r\n", b"\r\n.\r\0\n", b"\r\n.\r\r\n",
]  # fmt: skip
HARMLESS = [b"\r\n..\r\n", b"\r\n .\r\n", b"\r\n. \r\n", b"\r\n...\r\n.\t\r\n"]
"""Not an end, and nothing wrong with it either: one message."""


def with_smuggled(place: Place, content: bytes, false_end: bytes) -> tuple[bytes, bytes]:
    """The content with a false end and a whole transaction after it, as a smuggler writes it; and that transaction."""
    smuggled = (
        f"MAIL FROM:<{SENDER}>\r\nRCPT TO:<{place('smuggled')}>\r\nDATA\r\nFrom: {SENDER}\r\n\r\nsmuggled\r\n"
    ).encode()
    return content.removesuffix(b"\r\n") + false_end + smuggled, smuggled


async def open_transaction(world: FaultWorld, recipient: str) -> Client:
    client = await world.connect()
    assert (await client.say(f"MAIL FROM:<{SENDER}>")).startswith("250")
    assert (await client.say(f"RCPT TO:<{recipient}>")).startswith("250")
    return client


@pytest.mark.parametrize("how", ["at once", "byte by byte", "BDAT"])
@pytest.mark.parametrize("false_end", FALSE_ENDS, ids=repr)
async def test_a_false_end_of_data_is_refused_with_all_that_follows(
    world: FaultWorld, place: Place, false_end: bytes, how: str
) -> None:
    ledger_id, content = world.content(body=b"first\r\n")
    data, _ = with_smuggled(place, content, false_end)
    before = await accepted(world)
    client = await open_transaction(world, place("first"))
    if how == "BDAT":
        await client.send(b"BDAT %d LAST\r\n" % len(data) + data)
    else:
        assert (await client.say("DATA")).startswith("354")
        cut = len(content) - 2
        for piece in [data, b".\r\n"] if how == "at once" else [data[:cut], *(bytes([b]) for b in data[cut : cut + 8])]:
            await client.send(piece)
            await asyncio.sleep(0.001 if how != "at once" else 0)
        if how != "at once":
            await client.send(data[cut + 8 :] + b".\r\n")
    assert (await client.reply()).startswith("500 5.6.0 ")
    await client.send(b"QUIT\r\n")
    assert (await client.rest()).startswith("221 2.0.0 "), "one reply to all of it"
    await client.close()
    assert await accepted(world) == before
    assert not mail_of(place, ledger_id)


@pytest.mark.parametrize("ending", HARMLESS, ids=repr)
async def test_a_line_with_a_dot_and_more_is_content(world: FaultWorld, place: Place, ending: bytes) -> None:
    _, sample = world.content(body=b"first\r\n")
    head = sample.removesuffix(b"first\r\n")
    data, _ = with_smuggled(place, sample, ending)
    body = data[len(head) :]
    received = body.replace(b"\r\n.", b"\r\n")  # one dot at the start of a line is taken out
    ledger_id, content = world.content(body=received)
    client = await open_transaction(world, place("first"))
    assert (await client.say("DATA")).startswith("354")
    await client.send(content.removesuffix(received) + body + b".\r\n")
    reply = await client.reply()
    assert reply.startswith("250 ")
    await client.close()
    world.ledger.submitted(ledger_id, place("first"), sha256(received).digest())
    await world.until(lambda: mail_of(place, ledger_id))
    (delivered,) = mail_of(place, ledger_id)
    assert delivered.endswith(received)


async def test_a_true_end_of_data_within_a_chunk_is_stuffed_on_its_way_out(world: FaultWorld, place: Place) -> None:
    # RFC 3030: in BDAT a dot means nothing, but the receiver gets DATA, where it would be the end.
    for body in (b"\r\n.\r\n", b"x\r\n.\r\nMAIL FROM:<a@b.example>\r\n", b".\r\n", b".\r\n.\r\n..\r\n.", b"end\r\n."):
        whole = body if body.endswith(b"\r\n") else body + b"\r\n"
        ledger_id, content = world.content(body=whole)
        client = await open_transaction(world, place("first"))
        sent = content.removesuffix(whole) + body
        await client.send(b"BDAT %d LAST\r\n" % len(sent) + sent)
        assert (await client.reply()).startswith("250 ")
        await client.close()
        world.ledger.submitted(ledger_id, place("first"), sha256(whole).digest())
        await world.until(lambda ledger_id=ledger_id: mail_of(place, ledger_id))
        (delivered,) = mail_of(place, ledger_id)
        assert delivered.partition(b"\r\n\r\n")[2] == whole


# 22: text in clear that is pipelined into TLS


@pytest.mark.parametrize("waits_for_220", [False, True])
async def test_mail_pipelined_after_starttls_in_clear_is_never_taken(
    world: FaultWorld, place: Place, waits_for_220: bool
) -> None:
    ledger_id, content = world.content()
    transaction = f"MAIL FROM:<{SENDER}>\r\nRCPT TO:<{place('first')}>\r\nDATA\r\n".encode() + content + b".\r\n"
    before = await accepted(world)
    client = await world.connect(TRUSTED)
    if waits_for_220:
        assert (await client.say("STARTTLS")).startswith("220")
        await client.send(transaction)
    else:
        await client.send(b"STARTTLS\r\nEHLO client.test\r\n" + transaction)
    async with asyncio.timeout(10):
        said = await client.reader.read(-1)
    await client.close()
    assert b"250" not in said
    assert said.startswith(b"554 5.5.1 ") != waits_for_220
    assert await accepted(world) == before
    assert not mail_of(place, ledger_id)


async def test_text_in_clear_before_the_handshake_does_not_reach_the_session_within_tls(world: FaultWorld) -> None:
    # The STARTTLS command and what follows come in separate packets, the second one with the ClientHello behind it.
    def inject() -> bytes:
        """What the session within TLS said; a blocking client, because asyncio's never notices a server that closed first."""
        with socket.create_connection(("127.0.0.1", world.ports[TRUSTED]), timeout=ANSWER_SECONDS) as plain:
            assert plain.recv(1000).startswith(b"220 ")
            plain.sendall(b"EHLO client.test\r\n")
            assert b"STARTTLS" in plain.recv(1000)
            plain.sendall(b"STARTTLS\r\n")
            assert plain.recv(1000).startswith(b"220 ")
            plain.sendall(b"RSET\r\n")
            try:
                with client_context().wrap_socket(plain) as secured:
                    secured.sendall(b"NOOP\r\n")
                    return secured.recv(1000)
            except (ssl.SSLError, ConnectionError):
                return b""

    assert await asyncio.to_thread(inject) == b""


# 23: line breaks and NUL in the envelope and in what we add


@pytest.mark.parametrize("octet", ["+0D", "+0A", "+00", "+0D+0A", "+1B", "+7F"])
@pytest.mark.parametrize(
    "command",
    [
        "MAIL FROM:<{sender}> ENVID=a{octet}X",
        "MAIL FROM:<{sender}> AUTH=a{octet}X",
        "MAIL FROM:<{sender}>\nRCPT TO:<{to}> ORCPT=rfc822;a{octet}X",
        "MAIL FROM:<{sender}>\nRCPT TO:<{to}> ORCPT=utf-8;a{octet}X",
    ],
    ids=["ENVID", "AUTH", "ORCPT", "ORCPT utf-8"],
)
async def test_xtext_that_decodes_to_a_control_character(
    world: FaultWorld, place: Place, command: str, octet: str
) -> None:
    client = await world.connect()
    replies = [
        await client.say(line) for line in command.format(sender=SENDER, to=place("xtext"), octet=octet).split("\n")
    ]
    await client.close()
    if "utf-8;" in command:
        assert replies[-1].startswith(("501 5.5.4 ", "250 ")), "RFC 6533 has other escapes: a plus sign is one"
    else:
        assert replies[-1].startswith("501 5.5.4 ")


@pytest.mark.parametrize(
    "escape", ["\\x{0D}", "\\x{0A}", "\\x{00}", "\\x{85}", "\\x{2028}", "\\x{D800}", "\\x{110000}"]
)
async def test_unitext_that_decodes_to_a_line_break_or_to_no_character(
    world: FaultWorld, place: Place, escape: str
) -> None:
    client = await world.connect()
    await client.say(f"MAIL FROM:<{SENDER}>")
    assert (await client.say(f"RCPT TO:<{place('x')}> ORCPT=utf-8;a{escape}b")).startswith("501 5.5.4 ")
    await client.close()


@pytest.mark.parametrize("octet", [b"\r", b"\n", b"\0"], ids=repr)
@pytest.mark.parametrize(
    "line",
    [
        b"EHLO client%stest", b"HELO client%s.test", b"MAIL FROM:<or%sders@shop.example>",
        b'MAIL FROM:<"or%sders"@shop.example>', b"MAIL FROM:<orders@shop.example> ENVID=a%sb",
        b"RCPT TO:<us%ser@d1.example>", b'RCPT TO:<"us%ser"@d1.example>', b"RCPT TO:<user@d1.example> ORCPT=rfc822;a%sb",
    ],
    ids=repr,
)  # fmt: skip
async def test_control_characters_in_commands_are_refused_and_nothing_is_sent(
    world: FaultWorld, place: Place, line: bytes, octet: bytes
) -> None:
    before = await accepted(world)
    client = await world.connect()
    if line.startswith(b"RCPT"):
        await client.say(f"MAIL FROM:<{SENDER}>")
    await client.send(line % octet + b"\r\n")
    replies = [await client.reply()]
    if octet == b"\n":
        replies.append(await client.reply())  # what follows is a line of its own, and no command
    assert all(reply.startswith("500 5.5.2 ") for reply in replies), replies
    assert (await client.say("NOOP")).startswith("250"), "the session is in step"
    await client.close()
    assert await accepted(world) == before


@pytest.mark.parametrize("name", ["shop\r\nX-Injected: 1", "shop\0", "\x1b[2J", "shop\r\n250 2.0.0 injected"])
async def test_an_identity_with_line_breaks_fails_to_log_in_and_stays_one_line_of_the_log(
    world: FaultWorld, name: str
) -> None:
    client = await world.connect(SUBMISSION, tls=True, source="127.0.0.77")
    for words in (f"\0{name}\0wrong", f"{name}\0shop\0wrong"):
        reply = await client.say("AUTH PLAIN " + base64.b64encode(words.encode()).decode())
        assert reply.startswith(("535 5.7.8 ", "501 5.5.2 ", "421 4.7.0 "))
        assert "njected" not in reply
        if reply.startswith("421"):
            break
    await client.close()
    lines = world.system.log_file.read_bytes().splitlines()
    assert all(line.startswith(b"{") and line.endswith(b"}") for line in lines)
    assert b"\x1b" not in b"".join(lines)


async def test_control_fields_with_folded_lines_leave_no_line_break(world: FaultWorld, place: Place) -> None:
    extra = "X-Postrail-Tag: spring\r\n X-Injected: 1\r\nX-Postrail-Metadata-Order: 7\r\n X-Injected: 2\r\n"
    sent = await world.submit(place("tagged"), extra=extra)
    await world.fates(sent)
    (message,) = mail_of(place, sent.ledger_id)
    assert "X-Injected" not in header_of(message)
    assert b"njected" not in message
    for event in await world.events(sent.message_id):
        assert "\r" not in event.tag
        assert "\n" not in event.tag


@pytest.mark.parametrize("octet", [b"\0", b"\r", b"\n"], ids=repr)
async def test_header_fields_with_bare_line_ends_or_nul_are_refused(
    world: FaultWorld, place: Place, octet: bytes
) -> None:
    ledger_id, content = world.content()
    client = await open_transaction(world, place("first"))
    assert (await client.say("DATA")).startswith("354")
    await client.send(content.replace(b"Subject: ", b"Subject: a" + octet + b"X-Injected: 1", 1) + b".\r\n")
    assert (await client.reply()).startswith("500 5.6.0 ")
    await client.close()
    assert not mail_of(place, ledger_id)


class Hostile(Behaviour):
    """Writes what should break the notification apart, or the terminal of who reads it."""

    TEXT = "550-5.1.1 a\rX-Injected: 1\r\n550-5.1.1 \0\x1b[2Jb\x85X-Injected: 2\u2028X-Injected: 3\u202e\r\n550 5.1.1 --=_end--"

    def rcpt(self, session: Session, address: str) -> str | None:
        return self.TEXT


async def test_a_hostile_reply_stays_one_field_of_the_notification(world: FaultWorld) -> None:
    place = await world.place(Hostile())
    envid, orcpt = "a+2Bb", "rfc822;c+2Bd@other.example"
    sent = await world.submit(f"{place('user')} ORCPT={orcpt}", parameters=f"ENVID={envid} RET=HDRS")
    received = await world.report(sent)
    assert not received.has_bare_line_ends
    assert not any(octet < 32 and octet not in b"\r\n\t" for octet in received.content)
    report = read_report(received.content)
    (about,) = report.recipients
    assert set(about) <= {
        "Original-Recipient", "Final-Recipient", "Action", "Status", "Remote-MTA", "Diagnostic-Code", "Last-Attempt-Date",
    }  # fmt: skip
    assert "X-Injected: 1" in about["Diagnostic-Code"], "it is shown, on one line"
    assert (about["Status"], about["Original-Recipient"]) == ("5.1.1", "rfc822;c+d@other.example")
    assert report.about_message["Original-Envelope-Id"] == "a+b"
    story = await world.system.command("trace", sent.message_id)
    assert "X-Injected" in story
    assert all(character.isprintable() or character == "\n" for character in story), "a terminal cannot be harmed"


async def test_a_host_name_with_line_breaks_from_dns_breaks_nothing(world: FaultWorld, place: Place) -> None:
    world.system.dns.add("crlf.example", "MX", r"10 mx\013\010X-Injected:\0321.crlf.example.")
    world.system.dns.add(r"mx\013\010X-Injected:\0321.crlf.example", "A", place.address)
    sent = await world.submit("user@crlf.example", extra="X-Postrail-Stream: brief\r\n")
    fates = await world.fates(sent)
    if fates["user@crlf.example"] is not EventType.DELIVERED:
        report = read_report((await world.report(sent)).content)
        assert "X-Injected" not in report.recipients[0]
        assert "X-Injected" not in report.about_message
    story = await world.system.command("trace", sent.message_id)
    assert story
    assert all(character.isprintable() or character == "\n" for character in story)


# 24: relaying

ROUTES = [
    "user%evil.example@{domain}", "evil.example!user@{domain}", "@{domain}:user@evil.example", '"user@evil.example"@{domain}',
    "user@evil.example@{domain}", "@evil.example,@{domain}:user@{domain}", '"user%evil.example"@{domain}',
    '"evil.example!user"@{domain}', "user%evil.example%other.example@{domain}",
]  # fmt: skip


@pytest.mark.parametrize("route", ROUTES)
async def test_a_recipient_that_asks_for_relaying_is_refused_and_gets_nothing(
    world: FaultWorld, place: Place, route: str
) -> None:
    before, arrived = await accepted(world), len(place.mail)
    client = await world.connect(SUBMISSION, tls=True)
    assert (await client.log_in()).startswith("235")
    recipient = route.format(domain=place.domain)
    await client.send(f"MAIL FROM:<{SENDER}>\r\nRCPT TO:<{recipient}>\r\nDATA\r\n".encode())
    replies = [(await client.reply())[:9] for _ in range(3)]
    await client.close()
    assert replies == ["250 2.1.0", "550 5.7.1", "503 5.5.1"]
    assert await accepted(world) == before
    assert len(place.mail) == arrived


@pytest.mark.parametrize("sender", [SENDER, "", "user@d1.example", f"@evil.example:{SENDER}"])
@pytest.mark.parametrize("recipient", ["user@{domain}", "user@evil.example", "user%evil.example@{domain}"])
async def test_a_stranger_relays_nothing(world: FaultWorld, place: Place, sender: str, recipient: str) -> None:
    before = await accepted(world)
    lines = [f"MAIL FROM:<{sender}>", f"RCPT TO:<{recipient.format(domain=place.domain)}>", "DATA", "BDAT 0 LAST"]
    for listener, refusal in ((STRANGERS, "550 5.7.1"), (SUBMISSION, "530 5.7.0")):
        client = await world.connect(listener)
        assert [(await client.say(line))[:9] for line in lines] == [refusal] * 4
        await client.close()
    assert await accepted(world) == before


@pytest.mark.parametrize(
    "sender", ["", "user@evil.example", f"@evil.example:{SENDER}", "user%evil.example@other.example"]
)
async def test_a_submitter_sends_as_nobody_else(world: FaultWorld, sender: str) -> None:
    client = await world.connect(SUBMISSION, tls=True)
    assert (await client.log_in()).startswith("235")
    assert (await client.say(f"MAIL FROM:<{sender}>")).startswith("550 5.7.1 ")
    assert (await client.say("RCPT TO:<user@d1.example>")).startswith("503 5.5.1 ")
    await client.close()
