"""How a source address and its proxy are written in the configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from postrail.core.config import Config, PoolConfig, SourceConfig
from postrail.core.egress_config import Bind, ProxyAddress, parse_proxy
from postrail.core.socks5 import Credentials
from postrail.sender.egress import Proxy, Way, ways
from postrail.shell.configuration import ConfigurationError, check_machine

SOURCE = {"address": "192.0.2.1", "ehlo": "out.example.com"}
THROUGH = {**SOURCE, "bind": "socks5", "proxy": "socks5://10.0.0.1:1081"}


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("socks5://192.0.2.9:1081", "192.0.2.9", 1081),
        ("socks5://192.0.2.9", "192.0.2.9", 1080),
        ("socks5://[2001:db8::9]:1081", "2001:db8::9", 1081),
        ("socks5://[2001:db8::9]", "2001:db8::9", 1080),
        (" socks5://Egress.example:1 ", "egress.example", 1),
    ],
)
def test_proxy(text: str, host: str, port: int) -> None:
    assert parse_proxy(text) == ProxyAddress(host, port)
    assert parse_proxy(str(parse_proxy(text))) == parse_proxy(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "192.0.2.9:1080",
        "http://192.0.2.9:1080",
        "socks5://",
        "socks5://:1080",
        "socks5://192.0.2.9:0",
        "socks5://192.0.2.9:70000",
        "socks5://192.0.2.9:x",
        "socks5://2001:db8::9",
        "socks5://[192.0.2.9]:1080",
        "socks5://[2001:db8::9",
        "socks5://[2001:db8::x:y]:1080",
        "socks5://user:password@192.0.2.9:1080",
        "socks5://192.0.2.9:1080/",
    ],
)
def test_what_is_no_proxy(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not a proxy|port number|IPv6|IPv4 or IPv6"):
        parse_proxy(text)


def test_direct_is_the_default() -> None:
    source = SourceConfig.model_validate(SOURCE)
    assert (source.bind, source.proxy) == (Bind.DIRECT, None)


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ({**SOURCE, "bind": "socks5"}, "bind: socks5 needs proxy"),
        ({**SOURCE, "proxy_login": {"username": "u", "password_file": "f"}}, "proxy_login needs proxy"),
        ({**THROUGH, "bind": "gateway"}, "not for bind: gateway"),
        ({**THROUGH, "bind": "socks4"}, "'direct', 'socks5' or 'gateway'"),
    ],
)
def test_half_a_proxy_is_refused(source: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        SourceConfig.model_validate(source)


def config(**pools: list[dict[str, Any]]) -> Config:
    return Config.model_validate(
        {
            "hostname": "mail.example.com",
            "data_directory": "/nonexistent/postrail",
            "pools": {name: {"sources": sources} for name, sources in pools.items()},
        }
    )


def test_an_address_leaves_one_way() -> None:
    assert config(default=[THROUGH], bulk=[THROUGH]).pools["bulk"].sources[0].bind is Bind.SOCKS5
    with pytest.raises(ValueError, match=r"192\.0\.2\.1 stands twice, with another bind"):
        config(default=[THROUGH], bulk=[SOURCE])


def test_only_direct_addresses_must_be_of_this_machine(tmp_path: Path) -> None:
    assert "192.0.2.1 is not an address of this machine" in "\n".join(check_machine(config(default=[SOURCE])))
    for source in (THROUGH, {**SOURCE, "bind": "gateway"}, {**SOURCE, "proxy": "socks5://10.0.0.1"}):
        assert "192.0.2.1" not in "\n".join(check_machine(config(default=[source])))
    login = {"username": "sender", "password_file": str(tmp_path / "absent")}
    problems = "\n".join(check_machine(config(default=[{**THROUGH, "proxy_login": login}])))
    assert "pools.default.sources (192.0.2.1): proxy_login.password_file" in problems


def test_password_comes_from_its_file(tmp_path: Path) -> None:
    file = tmp_path / "password"
    pool = PoolConfig(
        sources=(
            SourceConfig.model_validate({**THROUGH, "proxy_login": {"username": "s", "password_file": str(file)}}),
            SourceConfig.model_validate({**SOURCE, "address": "192.0.2.2"}),
        )
    )
    with pytest.raises(ConfigurationError, match=r"the source 192\.0\.2\.1: .* cannot be read"):
        ways([pool])
    file.write_text("\n")
    with pytest.raises(ConfigurationError, match="must hold 1 to 255 bytes"):
        ways([pool])
    file.write_text("sesame\n")
    proxy = Proxy(ProxyAddress("10.0.0.1", 1081), Credentials("s", "sesame"))
    assert ways([pool]) == {"192.0.2.1": Way("192.0.2.1", Bind.SOCKS5, proxy), "192.0.2.2": Way("192.0.2.2")}
