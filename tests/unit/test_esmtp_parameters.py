"""Parameters of MAIL and RCPT."""

import pytest

from postrail.core.esmtp_parameters import MailParameters, decode_xtext, mail_parameters, rcpt_parameters
from postrail.core.records import Notify
from postrail.core.refusals import Refused


def test_all_parameters_of_mail() -> None:
    found = mail_parameters("SIZE=100 body=8bitmime SMTPUTF8 RET=full ENVID=a+20b AUTH=<>")
    assert found == MailParameters(100, eight_bit=True, smtputf8=True, ret="FULL", envid="a b")


@pytest.mark.parametrize(
    ("text", "notify", "orcpt"),
    [
        ("", Notify.ABSENT, ""),
        ("NOTIFY=never", Notify.NEVER, ""),
        ("NOTIFY=SUCCESS,FAILURE,DELAY", Notify.SUCCESS | Notify.FAILURE | Notify.DELAY, ""),
        ("ORCPT=RFC822;a+40b", Notify.ABSENT, "rfc822;a@b"),
        ("ORCPT=utf-8;\\x{E4}@b", Notify.ABSENT, "utf-8;ä@b"),
    ],
)
def test_parameters_of_rcpt(text: str, notify: Notify, orcpt: str) -> None:
    assert rcpt_parameters(text) == (notify, orcpt)


@pytest.mark.parametrize(
    "text",
    [
        "SIZE=",
        "SIZE=-1",
        "SIZE=1x",
        "SIZE=٣",
        "=x",
        "SMTPUTF8=1",
        "RET=",
        "ENVID=" + "x" * 101,
        "ENVID=a+0D+0A",
        "ENVID=a+0d",
    ],
)
def test_wrong_values_of_mail(text: str) -> None:
    with pytest.raises(Refused) as refused:
        mail_parameters(text)
    assert (refused.value.reply.code, refused.value.reply.enhanced) == (501, "5.5.4")


@pytest.mark.parametrize(
    "text",
    ["NOTIFY=", "NOTIFY=X", "NOTIFY=NEVER,SUCCESS", "ORCPT=x", "ORCPT=;x", "ORCPT=rfc822;", "ORCPT=rfc822;+0A",
     "ORCPT=utf-8;\\x{0A}x",
     "ORCPT=utf-8;\\x{FFFFFF}", "ORCPT=utf-8;\\x{D800}"],
)  # fmt: skip
def test_wrong_values_of_rcpt(text: str) -> None:
    with pytest.raises(Refused) as refused:
        rcpt_parameters(text)
    assert (refused.value.reply.code, refused.value.reply.enhanced) == (501, "5.5.4")


@pytest.mark.parametrize("text", ["HOLDFOR=5", "X\ud800Y"])
def test_unknown_parameters(text: str) -> None:
    for parse in (mail_parameters, rcpt_parameters):
        with pytest.raises(Refused) as refused:
            parse(text)
        assert (refused.value.reply.code, refused.value.reply.enhanced) == (555, "5.5.4")


@pytest.mark.parametrize("text", ["a=b", "a+", "a+4", "a+4g", "a b", "é"])
def test_no_xtext(text: str) -> None:
    with pytest.raises(ValueError, match="xtext"):
        decode_xtext(text)
