"""What replies mean, by code, enhanced code, text and stage."""

import pytest

from postrail.core.replies import PermanentFailure, Reply, Scope, TemporaryFailure
from postrail.core.verdicts import Stage, enhanced_status, is_sender_fault, judge

TEMPORARY = TemporaryFailure
PERMANENT = PermanentFailure


@pytest.mark.parametrize(
    ("code", "enhanced", "text", "stage", "kind", "scope"),
    [
        (450, "4.7.1", "Greylisted, try later", Stage.RCPT, TEMPORARY, Scope.RECIPIENT),
        (451, "4.7.1", "IP rate limited; greylisting in action", Stage.RCPT, TEMPORARY, Scope.RECIPIENT),
        (452, "4.2.2", "Mailbox full", Stage.RCPT, TEMPORARY, Scope.RECIPIENT),
        (452, "4.3.1", "Insufficient system storage", Stage.MAIL, TEMPORARY, Scope.SITE),
        (451, "4.3.0", "Try later", Stage.CONTENT, TEMPORARY, Scope.SITE),
        (451, "4.7.0", "Unusual rate of mail from your IP", Stage.CONTENT, TEMPORARY, Scope.SITE),
        (451, "", "[TSS04] Messages temporarily deferred", Stage.MAIL, TEMPORARY, Scope.SITE),
        (550, "5.1.1", "No such user", Stage.RCPT, PERMANENT, Scope.RECIPIENT),
        (550, "", "No such user", Stage.RCPT, PERMANENT, Scope.RECIPIENT),
        (550, "5.1.1", "No such user", Stage.CONTENT, PERMANENT, Scope.RECIPIENT),
        (552, "5.2.2", "Quota", Stage.CONTENT, PERMANENT, Scope.RECIPIENT),
        (554, "5.6.0", "Content rejected", Stage.CONTENT, PERMANENT, Scope.MESSAGE),
        (550, "5.1.8", "Sender domain does not resolve", Stage.RCPT, PERMANENT, Scope.MESSAGE),
        (550, "5.1.7", "Bad sender", Stage.MAIL, PERMANENT, Scope.MESSAGE),
        (552, "5.3.4", "Message too large", Stage.MAIL, PERMANENT, Scope.MESSAGE),
        (555, "5.5.4", "Unsupported parameter", Stage.MAIL, PERMANENT, Scope.MESSAGE),
        (501, "5.1.3", "Bad address syntax", Stage.RCPT, PERMANENT, Scope.RECIPIENT),
    ],
)
def test_stage_and_codes_decide(code: int, enhanced: str, text: str, stage: Stage, kind: type, scope: Scope) -> None:
    failure = judge(Reply(code, enhanced, text), stage)
    assert (type(failure), failure.scope) == (kind, scope)


@pytest.mark.parametrize("stage", list(Stage))
def test_421_is_temporary_and_of_the_site_at_every_stage(stage: Stage) -> None:
    failure = judge(Reply(421, "4.7.0", "Come back later"), stage)
    assert isinstance(failure, TemporaryFailure)
    assert failure.scope is Scope.SITE


@pytest.mark.parametrize(
    "text",
    [
        "Too many messages in this connection",
        "Idle timeout, closing",
        "4 messages per session only",
        "Connection timed out",
    ],
)
def test_421_about_this_session_leaves_the_site_alone(text: str) -> None:
    assert judge(Reply(421, "4.7.0", text), Stage.MAIL).scope is Scope.SESSION


@pytest.mark.parametrize("stage", [Stage.GREETING, Stage.EHLO, Stage.STARTTLS])
@pytest.mark.parametrize("code", [500, 521, 550, 554])
def test_refusal_before_mail_is_never_the_recipients_fault(stage: Stage, code: int) -> None:
    failure = judge(Reply(code, "5.7.1", "You are listed"), stage)
    assert isinstance(failure, TemporaryFailure)
    assert failure.scope is Scope.SESSION


def test_552_to_rcpt_is_temporary_unless_it_speaks_of_the_size() -> None:
    assert isinstance(judge(Reply(552, "", "Too many recipients"), Stage.RCPT), TemporaryFailure)
    assert isinstance(judge(Reply(552, "5.2.2", "Mailbox full"), Stage.RCPT), TemporaryFailure)
    assert isinstance(judge(Reply(552, "5.3.4", "Message too big"), Stage.RCPT), PermanentFailure)
    assert isinstance(judge(Reply(552, "5.2.2", "Mailbox full"), Stage.CONTENT), PermanentFailure)


@pytest.mark.parametrize(("code", "enhanced"), [(550, "4.2.2"), (450, "5.1.1")])
def test_contradicting_codes_are_temporary(code: int, enhanced: str) -> None:
    assert isinstance(judge(Reply(code, enhanced, "Who knows"), Stage.RCPT), TemporaryFailure)


@pytest.mark.parametrize("code", [500, 502, 503, 504])
@pytest.mark.parametrize("stage", [Stage.MAIL, Stage.RCPT, Stage.DATA, Stage.CONTENT])
def test_lost_dialogue_is_of_the_session(code: int, stage: Stage) -> None:
    failure = judge(Reply(code, "5.5.1", "Bad sequence of commands"), stage)
    assert isinstance(failure, TemporaryFailure)
    assert failure.scope is Scope.SESSION


@pytest.mark.parametrize("code", [0, 199, 250, 354, 600, 999])
def test_replies_that_make_no_sense_are_of_the_session(code: int) -> None:
    failure = judge(Reply(code, "", "?"), Stage.DATA)
    assert isinstance(failure, TemporaryFailure)
    assert failure.scope is Scope.SESSION


@pytest.mark.parametrize("detail", [25, 26, 27, 28, 29, 515])
def test_sender_faults_never_speak_of_the_recipient(detail: int) -> None:
    reply = Reply(550, f"5.7.{detail}", "Your mail has been blocked")
    assert is_sender_fault(reply)
    for stage in (Stage.MAIL, Stage.RCPT, Stage.CONTENT):
        assert judge(reply, stage).scope in {Scope.MESSAGE, Scope.SITE}
    assert not is_sender_fault(Reply(550, "5.1.1", "No such user"))
    assert not is_sender_fault(Reply(250, "2.7.25", "fine"))


@pytest.mark.parametrize(
    ("code", "enhanced", "permanent", "status"),
    [
        (550, "5.1.1", True, "5.1.1"),
        (452, "4.2.2", True, "5.2.2"),
        (550, "4.2.2", False, "4.2.2"),
        (550, "", True, "5.0.0"),
        (450, "", False, "4.0.0"),
        (450, "4.x.y", False, "4.0.0"),
        (554, "2.0.0", True, "5.0.0"),
    ],
)
def test_status_agrees_with_the_verdict(code: int, enhanced: str, permanent: bool, status: str) -> None:
    assert enhanced_status(Reply(code, enhanced, ""), permanent=permanent) == status
