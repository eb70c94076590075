"""Classes of refusals, as real receivers word them."""

import pytest

from postrail.core.bounces import BounceClass, classify, is_hard
from postrail.core.replies import Reply


@pytest.mark.parametrize(
    ("code", "enhanced", "text", "expected"),
    [
        (550, "5.1.1", "The email account that you tried to reach does not exist.", BounceClass.INVALID_RECIPIENT),
        (550, "", "No such user here", BounceClass.INVALID_RECIPIENT),
        (554, "", "delivery error: dd This user doesn't have a yahoo.com account", BounceClass.OTHER),
        (550, "5.5.0", "Requested action not taken: mailbox unavailable", BounceClass.INVALID_RECIPIENT),
        (550, "5.1.2", "Bad destination system", BounceClass.BAD_DOMAIN),
        (556, "5.1.10", "Recipient domain has null MX", BounceClass.BAD_DOMAIN),
        (550, "5.2.1", "The account is disabled", BounceClass.INACTIVE_MAILBOX),
        (554, "", "Mailbox bob@example.org is disabled", BounceClass.INACTIVE_MAILBOX),
        (452, "4.2.2", "Over quota", BounceClass.QUOTA),
        (552, "", "Mailbox full", BounceClass.QUOTA),
        (554, "5.7.1", "Service unavailable; Client host blocked using zen.spamhaus.org", BounceClass.SPAM_BLOCK),
        (550, "5.7.28", "Unusual rate of unsolicited mail", BounceClass.SPAM_BLOCK),
        (550, "5.7.1", "Message looks like spam", BounceClass.SPAM_CONTENT),
        (550, "5.7.26", "Unauthenticated email is not accepted", BounceClass.AUTHENTICATION),
        (550, "5.7.515", "Access denied, sending domain does not meet the required level", BounceClass.AUTHENTICATION),
        (550, "5.7.1", "Administrative prohibition", BounceClass.POLICY),
        (554, "5.7.1", "<x@y.z>: Relay access denied", BounceClass.RELAYING_DENIED),
        (554, "5.4.6", "Routing loop detected", BounceClass.ROUTING),
        (503, "5.5.1", "Bad sequence of commands", BounceClass.PROTOCOL),
        (501, "", "Syntax error", BounceClass.PROTOCOL),
        (552, "5.3.4", "Message size exceeds fixed limit", BounceClass.TOO_LARGE),
        (452, "4.5.3", "Too many recipients", BounceClass.TOO_MANY_RECIPIENTS),
        (451, "4.4.3", "MX lookup timed out", BounceClass.DNS_FAILURE),
        (451, "4.4.1", "Connection refused", BounceClass.NO_ANSWER),
        (450, "4.7.1", "Greylisted", BounceClass.TRANSIENT),
        (421, "", "Service not available", BounceClass.TRANSIENT),
        (599, "", "?", BounceClass.OTHER),
    ],
)
def test_class_of_a_reply(code: int, enhanced: str, text: str, expected: BounceClass) -> None:
    assert classify(Reply(code, enhanced, text)) is expected


def test_expiry_is_its_own_class() -> None:
    assert classify(Reply(450, "4.2.2", "Mailbox full"), expired=True) is BounceClass.EXPIRED
    assert classify(None, expired=True) is BounceClass.EXPIRED
    assert classify(None) is BounceClass.OTHER


def test_only_faults_of_the_address_are_hard() -> None:
    assert {bounce_class for bounce_class in BounceClass if is_hard(bounce_class)} == {
        BounceClass.INVALID_RECIPIENT,
        BounceClass.BAD_DOMAIN,
        BounceClass.INACTIVE_MAILBOX,
    }


@pytest.mark.parametrize("detail", ["25", "26", "27", "28", "29", "515"])
def test_sender_faults_are_never_hard(detail: str) -> None:
    assert not is_hard(classify(Reply(550, f"5.7.{detail}", "user unknown, no such user")))
