"""Where mail goes and from which address."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from postrail.core.address import domain_of
from postrail.core.config import Config
from postrail.core.dns_answers import DnsStatus, MxAnswer, MxHost
from postrail.core.identity import new_message_id
from postrail.core.records import Envelope, Lane, MessageId, Recipient, RouteKind
from postrail.core.replies import Failure, PermanentFailure, TemporaryFailure
from postrail.core.routes import Hop, Plan, Router

SOURCES = [
    {"address": "192.0.2.1", "ehlo": "out1.sender.test", "weight": 300},
    {"address": "192.0.2.2", "ehlo": "out2.sender.test", "weight": 100},
    {"address": "192.0.2.3", "ehlo": "out3.sender.test", "weight": 0},
]


def router(**sections: Any) -> Router:
    data: dict[str, Any] = {
        "hostname": "mail.sender.test",
        "data_directory": "unused",
        "pools": {"default": {"sources": SOURCES[:1]}, "bulk": {"sources": SOURCES}},
        "streams": {"transactional": {"lane": "urgent"}, "marketing": {"pool": "bulk"}},
    }
    return Router(Config.model_validate({**data, **sections}))


def message_id(number: int) -> MessageId:
    return new_message_id(1_800_000_000.0, number.to_bytes(10, "big"))


def envelope(*addresses: str, stream: str = "transactional", number: int = 0) -> Envelope:
    recipients = tuple(map(Recipient, addresses))
    return Envelope(message_id(number), "s@a.test", recipients, "app", stream, Lane.URGENT, 0.0, 1e9, 100)


def found(*hosts: tuple[int, str], implicit: bool = False) -> MxAnswer:
    return MxAnswer(DnsStatus.FOUND, tuple(MxHost(*host) for host in hosts), implicit=implicit)


def planned(by: Router, mail: Envelope, answers: dict[str, MxAnswer]) -> Plan:
    hops: dict[str, Hop | Failure] = {}
    for recipient in mail.recipients:
        domain = domain_of(recipient.address)
        hops[domain] = by.fixed(domain) or by.by_mx(domain, answers[domain])
    return by.plan(mail, hops)


def reply_of(hop: object) -> tuple[int, str]:
    assert isinstance(hop, (PermanentFailure, TemporaryFailure))
    assert hop.internal
    return (hop.reply.code, hop.reply.enhanced)


# What the DNS said


@pytest.mark.parametrize(
    ("status", "kind", "reply"),
    [
        (DnsStatus.NULL_MX, PermanentFailure, (556, "5.1.10")),
        (DnsStatus.NXDOMAIN, PermanentFailure, (550, "5.1.2")),
        (DnsStatus.NO_DATA, PermanentFailure, (550, "5.4.4")),
        (DnsStatus.FAILED, TemporaryFailure, (451, "4.4.3")),
    ],
)
def test_answers_without_hosts(status: DnsStatus, kind: type, reply: tuple[int, str]) -> None:
    hop = router().by_mx("rcpt.test", MxAnswer(status, detail="192.0.2.53:53 answered SERVFAIL"))
    assert isinstance(hop, kind)
    assert reply_of(hop) == reply
    assert "rcpt.test" in str(getattr(hop, "reply"))  # noqa: B009  # both failure types have it


def test_mx_hop_carries_hosts_site_and_group() -> None:
    hop = router().by_mx("rcpt.test", found((5, "mx1.google.com"), (10, "mx2.google.com")))
    assert isinstance(hop, Hop)
    assert (hop.kind, hop.next_hop, hop.port, hop.site, hop.group) == (RouteKind.MX, "rcpt.test", 25, "gmail", "gmail")
    assert [host.host for host in hop.hosts] == ["mx1.google.com", "mx2.google.com"]


@pytest.mark.parametrize("ours", ["mail.sender.test", "out2.sender.test"])
def test_hosts_not_better_than_ourselves_are_left_out(ours: str) -> None:
    hop = router().by_mx("rcpt.test", found((5, "a.test"), (10, "b.test"), (10, ours), (20, "c.test")))
    assert isinstance(hop, Hop)
    assert hop.hosts == (MxHost(5, "a.test"),)


def test_mail_to_ourselves_is_a_loop() -> None:
    assert reply_of(router().by_mx("rcpt.test", found((5, "mail.sender.test"), (20, "c.test")))) == (554, "5.4.6")


def test_localhost_as_mx_is_refused_outside_tests() -> None:
    answer = found((0, "localhost"))
    assert reply_of(router().by_mx("rcpt.test", answer)) == (550, "5.1.2")
    assert isinstance(router(routing={"allow_loopback": True}).by_mx("rcpt.test", answer), Hop)


# What the configuration says

FIXED = {
    "local_domains": {"local.test": {"host": "unix:/run/lmtp"}, "store.test": {"host": "127.0.0.1", "port": 2400}},
    "smarthosts": {"partner.test": {"host": "relay.partner.test", "port": 2525}, "bücher.test": {"host": "books.test"}},
}


@pytest.mark.parametrize(
    ("domain", "kind", "next_hop", "port", "site"),
    [
        ("local.test", RouteKind.LMTP, "unix:/run/lmtp", 0, "unix:/run/lmtp"),
        ("store.test", RouteKind.LMTP, "127.0.0.1", 2400, "lmtp:127.0.0.1:2400"),
        ("partner.test", RouteKind.SMARTHOST, "relay.partner.test", 2525, "relay.partner.test:2525"),
        ("bücher.test", RouteKind.SMARTHOST, "books.test", 25, "books.test"),
        ("xn--bcher-kva.test", RouteKind.SMARTHOST, "books.test", 25, "books.test"),
        ("[198.51.100.7]", RouteKind.SMARTHOST, "198.51.100.7", 25, "[198.51.100.7]"),
        ("[ipv6:2001:db8::7]", RouteKind.SMARTHOST, "2001:db8::7", 25, "[2001:db8::7]"),
    ],
)
def test_fixed_hops(domain: str, kind: RouteKind, next_hop: str, port: int, site: str) -> None:
    hop = router(routing=FIXED).fixed(domain)
    assert isinstance(hop, Hop)
    assert (hop.kind, hop.next_hop, hop.port, hop.site, hop.group) == (kind, next_hop, port, site, "default")


def test_other_domains_need_their_mx() -> None:
    assert router(routing=FIXED).fixed("sub.partner.test") is None


def test_smarthost_of_all_takes_what_nothing_else_does() -> None:
    by = router(routing={**FIXED, "smarthosts": {**FIXED["smarthosts"], "*": {"host": "[192.0.2.9]"}}})
    for domain, next_hop in (
        ("partner.test", "relay.partner.test"),
        ("local.test", "unix:/run/lmtp"),
        ("x.test", "192.0.2.9"),
    ):
        hop = by.fixed(domain)
        assert isinstance(hop, Hop)
        assert hop.next_hop == next_hop


@pytest.mark.parametrize(
    ("domain", "reply"),
    [
        ("", (553, "5.1.3")),
        ("[nonsense]", (553, "5.1.3")),
        ("[127.0.0.1]", (550, "5.1.2")),
        ("[ipv6:::ffff:127.0.0.1]", (550, "5.1.2")),
        ("[0.0.0.0]", (550, "5.1.2")),
        ("-ä-.test", (553, "5.1.2")),
    ],
)
def test_recipients_that_cannot_be_anywhere(domain: str, reply: tuple[int, str]) -> None:
    assert reply_of(router().fixed(domain)) == reply


# Deliveries


def test_recipients_are_grouped_by_hosts_in_their_order() -> None:
    same = found((10, "mx.shared.test"))
    plan = planned(
        router(routing=FIXED),
        envelope("1@a.test", "2@b.test", "3@c.test", "4@local.test", "5@a.test", "6@partner.test"),
        {"a.test": same, "b.test": found((10, "mx.b.test")), "c.test": same},
    )
    grouped = [(item.route.site, [recipient.address for recipient in item.recipients]) for item in plan.deliveries]
    assert grouped == [
        ("mx.shared.test", ["1@a.test", "3@c.test", "5@a.test"]),
        ("mx.b.test", ["2@b.test"]),
        ("unix:/run/lmtp", ["4@local.test"]),
        ("relay.partner.test:2525", ["6@partner.test"]),
    ]
    assert plan.failed == []


def test_one_provider_with_other_hosts_is_another_delivery() -> None:
    plan = planned(
        router(),
        envelope("1@a.test", "2@b.test"),
        {
            "a.test": found((10, "a.mail.protection.outlook.com")),
            "b.test": found((10, "b.mail.protection.outlook.com")),
        },
    )
    assert [(item.route.site, item.route.next_hop) for item in plan.deliveries] == [
        ("microsoft", "a.test"),
        ("microsoft", "b.test"),
    ]


def test_deliveries_are_bounded() -> None:
    plan = planned(
        router(routing={"max_recipients_per_delivery": 2}),
        envelope(*(f"{number}@a.test" for number in range(5))),
        {"a.test": found((10, "mx.a.test"))},
    )
    assert [len(item.recipients) for item in plan.deliveries] == [2, 2, 1]


def test_what_fails_does_not_hold_back_the_others() -> None:
    plan = planned(
        router(),
        envelope("1@gone.test", "2@a.test", "3@lame.test"),
        {
            "gone.test": MxAnswer(DnsStatus.NXDOMAIN),
            "a.test": found((10, "mx.a.test")),
            "lame.test": MxAnswer(DnsStatus.FAILED),
        },
    )
    assert [item.recipients[0].address for item in plan.deliveries] == ["2@a.test"]
    assert [(recipient.address, reply_of(failure)) for recipient, failure in plan.failed] == [
        ("1@gone.test", (550, "5.1.2")),
        ("3@lame.test", (451, "4.4.3")),
    ]


# Sources


def test_key_of_the_outbound_record() -> None:
    plan = planned(router(), envelope("1@a.test"), {"a.test": found((10, "mx.a.test"))})
    assert plan.deliveries[0].route.key == b"192.0.2.1|mx.a.test"


def test_stream_chooses_the_pool_and_weights_the_source() -> None:
    by, answers = router(), {"a.test": found((10, "mx.a.test"))}
    used = Counter[str]()
    for number in range(4000):
        (delivery,) = planned(by, envelope("1@a.test", stream="marketing", number=number), answers).deliveries
        assert delivery.route.pool == "bulk"
        used[delivery.route.source_address] += 1
    assert used.keys() == {"192.0.2.1", "192.0.2.2"}
    assert 0.70 < used["192.0.2.1"] / 4000 < 0.80


def test_retry_comes_from_the_same_source() -> None:
    by, answers = router(), {"a.test": found((10, "mx.a.test"))}
    mail = envelope("1@a.test", stream="marketing", number=7)
    assert len({planned(by, mail, answers).deliveries[0].route.source_address for _ in range(20)}) == 1


def test_mixed_pool_sends_from_an_address_that_can_reach_the_hosts() -> None:
    sources = [{"address": "192.0.2.1", "ehlo": "a.test"}, {"address": "2001:db8::1", "ehlo": "b.test"}]
    by = router(pools={"default": {"sources": sources}}, streams={"transactional": {}})
    hop = by.by_mx("a.test", found((10, "mx.a.test")))
    assert isinstance(hop, Hop)

    def used(versions: set[int]) -> set[str]:
        known = {hop.together: frozenset(versions)}
        plans = (by.plan(envelope("1@a.test", number=number), {"a.test": hop}, known) for number in range(40))
        return {plan.deliveries[0].route.source_address for plan in plans}

    assert by.choice("transactional").mixed
    assert used({4}) == {"192.0.2.1"}
    assert used({6}) == {"2001:db8::1"}
    assert used({4, 6}) == used(set()) == {"192.0.2.1", "2001:db8::1"}


def test_stream_that_is_configured_no_more_takes_the_default_pool() -> None:
    plan = planned(router(), envelope("1@a.test", stream="gone"), {"a.test": found((10, "mx.a.test"))})
    assert plan.deliveries[0].route.pool == "default"


def test_pool_of_weights_zero_defers_all_but_local_mail() -> None:
    by = router(routing=FIXED, pools={"default": {"sources": SOURCES[2:]}}, streams={"transactional": {}})
    plan = planned(by, envelope("1@local.test", "2@a.test"), {"a.test": found((10, "mx.a.test"))})
    assert [(item.route.kind, item.route.source_address) for item in plan.deliveries] == [(RouteKind.LMTP, "")]
    assert [(recipient.address, reply_of(failure)) for recipient, failure in plan.failed] == [
        ("2@a.test", (451, "4.3.5"))
    ]
