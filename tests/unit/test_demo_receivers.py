"""The simulated receivers' dialogue, without a network, and the habits of the demonstration's receivers."""

import asyncio

import pytest

from postrail.demo import receivers
from postrail.demo.habits import Habits
from postrail.demo.receivers import Behaviour, Received, Receiver, Session

START = b"EHLO c\r\nMAIL FROM:<a@b.example> SIZE=10\r\nRCPT TO:<bob@rcpt.example>\r\n"
CONTENT = b"Subject: x\r\n\r\n..dotted\r\nend\r\n"


class Pipe(asyncio.Transport):
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        super().__init__({"peername": ("192.0.2.1", 1234)})
        self.written = b""
        self.closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += data

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = True

    def codes(self) -> list[int]:
        lines = self.written.decode().splitlines()
        return [int(line[:3]) for line in lines if line[3:4] == " "]


def dialogue(behaviour: Behaviour, *pieces: bytes) -> tuple[Pipe, list[Received], Receiver]:
    found: list[Received] = []
    receiver = Receiver("mx.rcpt.example", "127.0.0.1", 0, behaviour, found.append)
    pipe = Pipe()
    session = Session(receiver)
    session.connection_made(pipe)
    for piece in pieces:
        session.data_received(piece)
    return pipe, found, receiver


def test_pipelined_message_is_recorded() -> None:
    pipe, found, _ = dialogue(Behaviour(), START + b"DATA\r\n", CONTENT + b".\r\nQUIT\r\n")
    assert pipe.codes() == [220, 250, 250, 250, 354, 250, 221]
    assert pipe.closed
    (received,) = found
    assert received.content == b"Subject: x\r\n\r\n.dotted\r\nend\r\n"
    assert (received.reverse_path, received.recipients) == ("a@b.example", ("bob@rcpt.example",))
    assert received.parameters == ("SIZE=10", "")
    assert received.client_address == "192.0.2.1"
    assert not received.has_bare_line_ends


def test_content_may_come_byte_by_byte() -> None:
    wire = START + b"DATA\r\n" + CONTENT + b".\r\n" + START + b"DATA\r\n.\r\nQUIT\r\n"
    pipe, found, _ = dialogue(Behaviour(), *(wire[index : index + 1] for index in range(len(wire))))
    assert [received.content for received in found] == [b"Subject: x\r\n\r\n.dotted\r\nend\r\n", b""]
    assert pipe.codes()[-1] == 221


def test_only_the_true_end_ends_the_content() -> None:
    fake = b"Subject: x\r\n\r\none\n.\nMAIL FROM:<evil@x>\r\n"
    _, found, _ = dialogue(Behaviour(), START + b"DATA\r\n" + fake + b".\r\n")
    assert [received.content for received in found] == [fake]
    assert found[0].has_bare_line_ends


@pytest.mark.parametrize(
    ("hook", "codes"),
    [
        ("greeting", [421]),
        ("ehlo", [220, 421]),
        ("mail", [220, 250, 421]),
        ("rcpt", [220, 250, 250, 421]),
        ("data", [220, 250, 250, 250, 421]),
        ("content", [220, 250, 250, 250, 354, 421]),
    ],
)
def test_421_at_every_stage_closes(hook: str, codes: list[int]) -> None:
    behaviour = Behaviour()
    setattr(behaviour, hook, lambda *_: "421 4.3.2 Going away")
    pipe, found, receiver = dialogue(behaviour, START + b"DATA\r\n", CONTENT + b".\r\n")
    assert pipe.codes() == codes
    assert pipe.closed
    assert found == []
    assert receiver.refusals == {"421": 1}


@pytest.mark.parametrize(
    ("answer", "recorded", "closed"),
    [
        (receivers.HANG, 0, False),
        (receivers.CLOSE, 0, True),
        (receivers.TAKE_AND_HANG, 1, False),
        (receivers.TAKE_AND_CLOSE, 1, True),
        ("554 5.6.0 No", 0, False),
    ],
)
def test_unusual_ends_of_a_transaction(answer: str, recorded: int, closed: bool) -> None:
    behaviour = Behaviour()
    setattr(behaviour, "content", lambda *_: answer)  # noqa: B010  # mypy allows no assignment to a method
    pipe, found, _ = dialogue(behaviour, START + b"DATA\r\n", CONTENT + b".\r\n")
    assert (len(found), pipe.closed) == (recorded, closed)
    assert pipe.codes()[-1] == (554 if answer.startswith("554") else 354)


def test_mixed_recipients() -> None:
    wire = START + b"RCPT TO:<nobody.1@rcpt.example>\r\nRCPT TO:<full.1@rcpt.example>\r\nDATA\r\n"
    pipe, found, _ = dialogue(Habits(lambda: 0.0, full_until=5.0), wire, CONTENT + b".\r\n")
    assert pipe.codes() == [220, 250, 250, 250, 550, 452, 354, 250]
    assert found[0].recipients == ("bob@rcpt.example",)


def test_no_recipient_no_data() -> None:
    pipe, _, _ = dialogue(Habits(lambda: 0.0), b"EHLO c\r\nMAIL FROM:<>\r\nRCPT TO:<nobody@x>\r\nDATA\r\nRSET\r\n")
    assert pipe.codes() == [220, 250, 250, 550, 554, 250]


def test_greylisting_lets_a_later_attempt_in() -> None:
    now = [0.0]
    habits = Habits(lambda: now[0], greylist_seconds=2.0)
    assert dialogue(habits, START)[0].codes()[-1] == 450
    now[0] = 1.9
    assert dialogue(habits, START)[0].codes()[-1] == 450
    now[0] = 2.0
    assert dialogue(habits, START)[0].codes()[-1] == 250


def test_messages_per_connection() -> None:
    message = START.replace(b"EHLO c\r\n", b"RSET\r\n") + b"DATA\r\n" + CONTENT + b".\r\n"
    pipe, found, _ = dialogue(Habits(lambda: 0.0, messages_per_connection=2), b"EHLO c\r\n", *([message] * 3))
    assert len(found) == 2
    assert pipe.codes()[-1] == 421
    assert pipe.closed


def test_rate_and_absence() -> None:
    now = [0.0]
    habits = Habits(lambda: now[0], messages_per_second=2, away=(5.0, 6.0))
    answers = []
    for now[0] in (0.0, 0.1, 0.2, 1.0, 5.5, 6.0):
        answers.append(dialogue(habits, b"EHLO c\r\nMAIL FROM:<>\r\n")[0].codes()[-1])  # the clock moves
    assert answers == [250, 250, 451, 250, 421, 250]
