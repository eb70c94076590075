"""The client's dialogue: a script of what each side says, and what the machine makes of it."""

from __future__ import annotations

import pytest

from postrail.core.records import Recipient
from postrail.core.replies import Reply
from postrail.core.reply_parser import RemoteProtocolError
from postrail.core.smtp_client import SmtpClient
from postrail.core.smtp_commands import NO_CAPABILITIES, LocalProtocolError, Transaction
from postrail.core.smtp_events import (
    ContentWanted,
    Event,
    Goodbye,
    Greeted,
    Hello,
    HelloAccepted,
    Outcome,
    Quit,
    SessionRefused,
    StartTls,
    StartTlsAccepted,
    StartTlsRefused,
    TransactionOver,
)
from postrail.core.smtp_states import State
from postrail.core.verdicts import Stage

ONE = (Recipient("one@example.com"),)
THREE = (Recipient("a@example.com"), Recipient("b@example.com"), Recipient("c@example.com"))


def say(machine: SmtpClient, *lines: str) -> tuple[list[Event], bytes]:
    """The server says these lines: the events, and what the machine wants written."""
    machine.receive("".join(line + "\r\n" for line in lines).encode())
    events = []
    while (event := machine.next_event()) is not None:
        events.append(event)
    return events, machine.take_output()


def ready(*capabilities: str, lmtp: bool = False) -> SmtpClient:
    machine = SmtpClient(lmtp=lmtp)
    say(machine, "220 hello")
    machine.send(Hello("client.example"))
    last = ("mx.example.com", *capabilities)
    say(machine, *(f"250-{line}" for line in last[:-1]), f"250 {last[-1]}")
    assert machine.state is State.READY
    return machine


def awaited(machine: SmtpClient) -> Stage | None:
    return machine.awaits


def begin(machine: SmtpClient, recipients: tuple[Recipient, ...] = ONE) -> list[bytes]:
    return machine.send(Transaction("from@example.org", recipients, 100)).split(b"\r\n")[:-1]


def outcomes(event: Event) -> list[tuple[Stage, int] | None]:
    assert isinstance(event, TransactionOver)
    return [(one.stage, one.reply.code) if one is not None else None for one in event.outcomes]


# sessions


def test_a_session_opens() -> None:
    machine = SmtpClient()
    assert awaited(machine) is Stage.GREETING
    assert say(machine, "220-first", "220 hello") == ([Greeted(Reply(220, "", "first hello"))], b"")
    assert machine.send(Hello("client.example")) == b"EHLO client.example\r\n"
    assert awaited(machine) is Stage.EHLO
    events, _ = say(machine, "250-mx", "250-PIPELINING", "250 SIZE 100")
    assert isinstance(events[0], HelloAccepted)
    assert machine.capabilities.pipelining
    assert machine.capabilities.size_bytes == 100


@pytest.mark.parametrize("greeting", ["554 5.7.1 go away", "421 4.3.2 busy", "450 later", "354 what"])
def test_a_greeting_refuses(greeting: str) -> None:
    machine = SmtpClient()
    events, _ = say(machine, greeting)
    assert isinstance(events[0], SessionRefused)
    assert events[0].stage is Stage.GREETING
    assert machine.state is State.CLOSED


def test_helo_follows_a_refused_ehlo() -> None:
    machine = SmtpClient()
    say(machine, "220 hello")
    machine.send(Hello("client.example"))
    assert say(machine, "502 5.5.1 what") == ([], b"HELO client.example\r\n")
    assert say(machine, "250 mx") == ([HelloAccepted(NO_CAPABILITIES)], b"")


def test_both_hellos_refused() -> None:
    machine = SmtpClient()
    say(machine, "220 hello")
    machine.send(Hello("client.example"))
    say(machine, "550 no")
    assert say(machine, "550 never")[0] == [SessionRefused(Stage.EHLO, Reply(550, "", "never"))]


def test_lmtp_says_lhlo_and_never_helo() -> None:
    machine = SmtpClient(lmtp=True)
    say(machine, "220 hello")
    assert machine.send(Hello("client.example")) == b"LHLO client.example\r\n"
    assert say(machine, "500 what") == ([SessionRefused(Stage.EHLO, Reply(500, "", "what"))], b"")


def test_quit() -> None:
    machine = ready()
    assert machine.send(Quit()) == b"QUIT\r\n"
    assert say(machine, "221 bye")[0] == [Goodbye(Reply(221, "", "bye"))]
    assert machine.state is State.CLOSED


def test_an_idle_session_is_closed_by_the_server() -> None:
    machine = ready()
    assert say(machine, "421 4.4.2 idle")[0] == [Goodbye(Reply(421, "4.4.2", "idle"))]
    assert machine.state is State.CLOSED


# STARTTLS


def test_what_follows_starttls_in_clear_is_discarded() -> None:
    machine = ready("STARTTLS", "PIPELINING")
    assert machine.send(StartTls()) == b"STARTTLS\r\n"
    machine.receive(b"220 go\r\n250-injected\r\n250 AUTH\r\n250 more")
    assert machine.next_event() == StartTlsAccepted()
    machine.receive(b"250 still in clear\r\n")
    assert machine.next_event() is None
    machine.secured()
    assert machine.capabilities == NO_CAPABILITIES, "what was learnt in clear is forgotten"
    assert machine.next_event() is None
    machine.send(Hello("client.example"))
    events, _ = say(machine, "250 mx")
    assert isinstance(events[0], HelloAccepted)
    assert not machine.capabilities.starttls


def test_a_refused_starttls_leaves_the_session_open() -> None:
    machine = ready("STARTTLS")
    machine.send(StartTls())
    assert say(machine, "454 4.7.0 no")[0] == [StartTlsRefused(Reply(454, "4.7.0", "no"))]
    assert machine.state is State.READY


def test_starttls_needs_the_offer() -> None:
    with pytest.raises(LocalProtocolError):
        ready("PIPELINING").send(StartTls())


def test_nothing_is_sent_during_the_handshake() -> None:
    machine = ready("STARTTLS")
    machine.send(StartTls())
    say(machine, "220 go")
    with pytest.raises(LocalProtocolError):
        begin(machine)


# transactions


def test_a_transaction_with_pipelining() -> None:
    machine = ready("PIPELINING")
    assert begin(machine) == [b"MAIL FROM:<from@example.org>", b"RCPT TO:<one@example.com>", b"DATA"]
    assert awaited(machine) is Stage.MAIL
    assert say(machine, "250 ok")[0] == []
    assert awaited(machine) is Stage.RCPT
    assert say(machine, "250 ok", "354 go")[0] == [ContentWanted()]
    machine.end_content()
    assert awaited(machine) is Stage.CONTENT
    assert say(machine, "250 2.0.0 queued")[0] == [
        TransactionOver((Outcome(Stage.CONTENT, Reply(250, "2.0.0", "queued")),))
    ]
    assert machine.state is State.READY
    assert awaited(machine) is None


def test_a_transaction_step_by_step() -> None:
    machine = ready()
    assert begin(machine, THREE[:2]) == [b"MAIL FROM:<from@example.org>"]
    assert say(machine, "250 ok") == ([], b"RCPT TO:<a@example.com>\r\n")
    assert say(machine, "550 5.1.1 no") == ([], b"RCPT TO:<b@example.com>\r\n")
    assert say(machine, "251 will forward") == ([], b"DATA\r\n")
    assert say(machine, "354 go") == ([ContentWanted()], b"")
    machine.end_content()
    events, _ = say(machine, "250 queued")
    assert outcomes(events[0]) == [(Stage.RCPT, 550), (Stage.CONTENT, 250)]


def test_recipients_are_judged_one_by_one() -> None:
    machine = ready("PIPELINING")
    begin(machine, THREE)
    say(machine, "250 ok", "250 ok", "450 4.2.1 later", "550 5.1.1 never", "354 go")
    machine.end_content()
    events, _ = say(machine, "250 queued")
    assert outcomes(events[0]) == [(Stage.CONTENT, 250), (Stage.RCPT, 450), (Stage.RCPT, 550)]


@pytest.mark.parametrize("pipelining", [True, False])
def test_mail_refused(pipelining: bool) -> None:
    machine = ready(*["PIPELINING"] * pipelining)
    begin(machine, THREE)
    script = ["550 5.7.1 no"] + ["503 first MAIL"] * 4 * pipelining
    events, output = say(machine, *script)
    assert outcomes(events[0]) == [(Stage.MAIL, 550)] * 3
    assert (output, machine.state) == (b"", State.READY)
    assert begin(machine)[0] == b"MAIL FROM:<from@example.org>", "no transaction is open, so there is nothing to reset"


def test_no_recipient_taken_and_data_refused() -> None:
    machine = ready("PIPELINING")
    begin(machine, THREE[:2])
    events, _ = say(machine, "250 ok", "550 a", "450 b", "554 no valid recipients")
    assert outcomes(events[0]) == [(Stage.RCPT, 550), (Stage.RCPT, 450)]
    assert begin(machine)[:2] == [b"RSET", b"MAIL FROM:<from@example.org>"]
    say(machine, "250 reset", "250 ok", "250 ok", "354 go")
    assert machine.state is State.CONTENT


def test_no_recipient_taken_step_by_step() -> None:
    machine = ready()
    begin(machine)
    say(machine, "250 ok")
    events, output = say(machine, "550 no")
    assert (outcomes(events[0]), output) == ([(Stage.RCPT, 550)], b"")
    assert begin(machine) == [b"RSET"]
    assert say(machine, "250 ok")[1] == b"MAIL FROM:<from@example.org>\r\n"


def test_content_wanted_for_nobody_gets_a_lone_dot() -> None:
    machine = ready("PIPELINING")
    begin(machine)
    assert say(machine, "250 ok", "550 no", "354 go") == ([], b".\r\n")
    events, _ = say(machine, "250 queued nothing")
    assert outcomes(events[0]) == [(Stage.RCPT, 550)]
    assert machine.state is State.READY


@pytest.mark.parametrize("reply", ["451 4.3.0 later", "554 5.7.1 spam"])
def test_data_refused(reply: str) -> None:
    machine = ready("PIPELINING")
    begin(machine, THREE[:2])
    events, _ = say(machine, "250 ok", "550 no", "250 ok", reply)
    assert outcomes(events[0]) == [(Stage.RCPT, 550), (Stage.DATA, int(reply[:3]))]


def test_lmtp_answers_for_each_recipient_taken() -> None:
    machine = ready("PIPELINING", lmtp=True)
    begin(machine, THREE)
    say(machine, "250 ok", "250 ok", "550 no", "250 ok", "354 go")
    machine.end_content()
    assert say(machine, "250 2.0.0 stored")[0] == []
    events, _ = say(machine, "452 4.2.2 over quota")
    assert outcomes(events[0]) == [(Stage.CONTENT, 250), (Stage.RCPT, 550), (Stage.CONTENT, 452)]


# 421, and connections that end


@pytest.mark.parametrize(
    ("before", "expected"),
    [
        ([], [(Stage.MAIL, 421)] * 3),
        (["250 ok"], [(Stage.RCPT, 421)] * 3),
        (["250 ok", "550 no"], [(Stage.RCPT, 550), (Stage.RCPT, 421), (Stage.RCPT, 421)]),
        (["250 ok", "550 no", "250 ok", "250 ok"], [(Stage.RCPT, 550), (Stage.DATA, 421), (Stage.DATA, 421)]),
    ],
)
def test_421_speaks_for_all_that_is_undecided(before: list[str], expected: list[tuple[Stage, int]]) -> None:
    machine = ready("PIPELINING")
    begin(machine, THREE)
    events, _ = say(machine, *before, "421 4.3.2 closing", "250 too late")
    assert len(events) == 1
    assert outcomes(events[0]) == expected
    assert machine.state is State.CLOSED
    assert machine.lost() is None


def test_421_after_the_dot_is_an_answer_and_not_ambiguous() -> None:
    machine = ready("PIPELINING")
    begin(machine)
    say(machine, "250 ok", "250 ok", "354 go")
    machine.end_content()
    events, _ = say(machine, "421 4.3.2 closing")
    assert events == [TransactionOver((Outcome(Stage.CONTENT, Reply(421, "4.3.2", "closing")),))]


def test_a_server_may_refuse_in_the_middle_of_the_content() -> None:
    machine = ready("PIPELINING")
    begin(machine)
    say(machine, "250 ok", "250 ok", "354 go")
    events, _ = say(machine, "552 5.3.4 too much")
    assert outcomes(events[0]) == [(Stage.CONTENT, 552)]
    assert machine.state is State.CLOSED


def test_a_connection_lost_before_the_dot_is_not_ambiguous() -> None:
    machine = ready("PIPELINING")
    begin(machine, THREE[:2])
    say(machine, "250 ok", "550 no", "250 ok", "354 go")
    over = machine.lost()
    assert over == TransactionOver((Outcome(Stage.RCPT, Reply(550, "", "no")), None), ambiguous=False)


def test_a_connection_lost_after_the_dot_is_ambiguous() -> None:
    machine = ready("PIPELINING")
    begin(machine)
    say(machine, "250 ok", "250 ok", "354 go")
    machine.end_content()
    assert machine.lost() == TransactionOver((None,), ambiguous=True)


def test_lmtp_lost_between_answers_is_ambiguous_for_the_rest() -> None:
    machine = ready("PIPELINING", lmtp=True)
    begin(machine, THREE[:2])
    say(machine, "250 ok", "250 ok", "250 ok", "354 go")
    machine.end_content()
    say(machine, "250 stored")
    over = machine.lost()
    assert over is not None
    assert (outcomes(over), over.ambiguous) == ([(Stage.CONTENT, 250), None], True)


def test_an_idle_connection_lost_loses_nothing() -> None:
    assert ready().lost() is None


# broken protocol, theirs and ours


@pytest.mark.parametrize("lines", [["250 unasked"], ["garbage"]])
def test_what_nobody_asked_for_breaks_the_protocol(lines: list[str]) -> None:
    machine = ready()
    with pytest.raises(RemoteProtocolError):
        say(machine, *lines)


def test_an_acceptance_before_the_content_breaks_the_protocol() -> None:
    machine = ready("PIPELINING")
    begin(machine)
    say(machine, "250 ok", "250 ok", "354 go")
    with pytest.raises(RemoteProtocolError):
        say(machine, "250 queued already")


@pytest.mark.parametrize("command", [Hello("x"), Quit()])
def test_commands_have_their_time(command: Hello | Quit) -> None:
    machine = SmtpClient()
    with pytest.raises(LocalProtocolError):
        machine.send(command)
    assert machine.state is State.GREETING, "the state is unchanged"


def test_one_transaction_at_a_time() -> None:
    machine = ready("PIPELINING")
    begin(machine)
    with pytest.raises(LocalProtocolError):
        begin(machine)
    with pytest.raises(LocalProtocolError):
        machine.end_content()


def test_a_refused_value_leaves_the_session_usable() -> None:
    machine = ready("PIPELINING")
    with pytest.raises(LocalProtocolError):
        begin(machine, (Recipient("a@b\r\nQUIT"),))
    assert machine.state is State.READY
    assert begin(machine)


def test_a_name_that_would_smuggle_is_refused() -> None:
    machine = SmtpClient()
    say(machine, "220 hello")
    with pytest.raises(LocalProtocolError):
        machine.send(Hello("x\r\nMAIL FROM:<>"))
