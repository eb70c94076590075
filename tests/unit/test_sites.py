"""Which domains share a site, and which group serves it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postrail.core.dns_answers import MxHost
from postrail.core.routing_config import ProviderConfig, RoutingConfig
from postrail.core.sites import MAX_NAME_LENGTH, Site, SiteTable, name_of_hosts

TABLE = SiteTable(RoutingConfig())


def hosts(*names: str) -> tuple[MxHost, ...]:
    return tuple(MxHost(10 * number, name) for number, name in enumerate(names))


@pytest.mark.parametrize(
    ("host", "provider", "group"),
    [
        ("gmail-smtp-in.l.google.com", "gmail", "gmail"),
        ("aspmx2.googlemail.com", "gmail", "gmail"),
        ("mta5.am0.yahoodns.net", "yahoo", "yahoo"),
        ("example-com.mail.protection.outlook.com", "microsoft", "microsoft"),
        ("example-com.x-v1.mx.microsoft", "microsoft", "microsoft"),
        ("mx01.mail.icloud.com", "apple", "apple"),
        ("mx1.comcast.net", "comcast", "default"),
        ("smtp-in.orange.fr", "orange", "default"),
        ("google.com", "gmail", "gmail"),
    ],
)
def test_known_providers(host: str, provider: str, group: str) -> None:
    assert TABLE.of("example.com", hosts(host)) == Site(provider, group, provider)


def test_provider_covers_a_domain_only_with_every_host() -> None:
    assert TABLE.of("example.com", hosts("aspmx.l.google.com", "alt1.googlemail.com")).name == "gmail"
    mixed = TABLE.of("example.com", hosts("aspmx.l.google.com", "backup.example.com"))
    assert mixed == Site("aspmx.l.google.com+backup.example.com", "default")
    assert TABLE.of("example.com", hosts("aspmx.l.google.com", "mx.icloud.com")).provider == ""


@pytest.mark.parametrize("host", ["notgoogle.com", "google.com.example.net", "xicloud.com", "com"])
def test_suffix_ends_at_a_dot(host: str) -> None:
    assert TABLE.of("example.com", hosts(host)).provider == ""


def test_domains_with_the_same_hosts_share_a_site_whatever_the_preferences() -> None:
    one = TABLE.of("a.example", (MxHost(10, "mx1.host.example"), MxHost(20, "mx2.host.example")))
    other = TABLE.of("b.example", (MxHost(5, "mx2.host.example"), MxHost(5, "mx1.host.example")))
    assert one == other == Site("mx1.host.example+mx2.host.example", "default")


def test_configured_provider_replaces_and_names_its_group() -> None:
    table = SiteTable(
        RoutingConfig(
            providers=(
                ProviderConfig(name="gmail", mx_suffixes=("gmail.test",)),
                ProviderConfig(name="partner", mx_suffixes=("mail.partner.test",), domains=("BÜRO.test",), group="vip"),
            ),
            groups=("gmail", "vip", "default"),
        )
    )
    assert table.of("x.test", hosts("mx.gmail.test")) == Site("gmail", "gmail", "gmail")
    assert table.of("x.test", hosts("mx.google.com")).provider == ""
    assert table.of("x.test", hosts("a.mail.partner.test")) == Site("partner", "vip", "partner")
    assert table.of("xn--bro-hoa.test", hosts("mx.other.test")) == Site("partner", "vip", "partner")
    assert table.of("x.test", hosts("mx.icloud.com")) == Site("apple", "default", "apple")


def test_provider_of_an_unknown_group_is_refused() -> None:
    provider = ProviderConfig(name="partner", group="gone")
    with pytest.raises(ValueError, match=r"providers \(partner\): there is no group 'gone' under groups"):
        RoutingConfig(providers=(provider,))


def test_longest_suffix_wins() -> None:
    inner = ProviderConfig(name="inner", mx_suffixes=("eu.google.com",))
    table = SiteTable(RoutingConfig(providers=(inner,)))
    assert table.of("x.test", hosts("mx.eu.google.com")).name == "inner"
    assert table.of("x.test", hosts("mx.us.google.com")).name == "gmail"


def test_no_host_is_named_like_a_provider() -> None:
    assert name_of_hosts(["gmail"]) == "gmail."


@given(st.sets(st.from_regex(r"[a-z]{1,30}\.[a-z]{2,20}", fullmatch=True), min_size=1, max_size=20))
def test_names_are_short_stable_and_distinct(names: set[str]) -> None:
    name = name_of_hosts(names)
    assert name == name_of_hosts(sorted(names, reverse=True))
    assert len(name) <= 2 * MAX_NAME_LENGTH
    assert name_of_hosts({*names, "one.more.example"}) != name
