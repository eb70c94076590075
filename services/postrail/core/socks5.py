"""The client's side of SOCKS5 (RFC 1928), with a password where the proxy wants one (RFC 1929): bytes in, bytes out.

Owns the dialogue up to the proxy's answer to CONNECT. It asks for no byte beyond that answer: what follows is the target's and
belongs to whoever speaks with it. Never opens a connection and never judges the address that the proxy bound: that is
`postrail.sender.egress`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from ipaddress import IPv4Address, IPv6Address, ip_address

VERSION = 5
MAX_CREDENTIAL_BYTES = 255

_CONNECT = 1
_IPV4, _NAME, _IPV6 = 1, 3, 4
_NO_AUTHENTICATION, _PASSWORD, _NOTHING_ACCEPTABLE = 0x00, 0x02, 0xFF
_PASSWORD_VERSION = 1

REPLIES = {
    1: "general failure",
    2: "not allowed by its rules",
    3: "network unreachable",
    4: "host unreachable",
    5: "connection refused",
    6: "TTL expired",
    7: "command not supported",
    8: "address type not supported",
}
"""RFC 1928 §6."""
ABOUT_THE_TARGET = frozenset({1, 2, 3, 4, 5, 6, 8})
"""Replies after which another target may still be reached through the same proxy."""


class ProxyError(Exception):
    """The proxy does not do its work, whatever the target: it breaks the protocol, or refuses us."""


class TargetRefused(Exception):
    """The proxy could not, or would not, connect to this target."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """User name and password, 1 to 255 bytes each in UTF-8 (RFC 1929 §2)."""

    username: str
    password: str

    def __repr__(self) -> str:
        return f"Credentials(username={self.username!r})"


@dataclass(frozen=True, slots=True)
class Bound:
    """BND.ADDR of the answer: where the connection leaves from. `name` instead of `address` where it is one."""

    address: IPv4Address | IPv6Address | None
    port: int
    name: str = ""

    def __str__(self) -> str:
        return str(self.address) if self.address is not None else repr(self.name)


class _Stage(Enum):
    METHOD = auto()
    PASSWORD = auto()
    HEAD = auto()
    ADDRESS = auto()
    DONE = auto()


class Handshake:
    """One CONNECT.

    Call `take_output`, write that, read at most `wanted_bytes`, `receive` them; again until `bound` is set.

    Args:
        target: an IP address.
        credentials: offered beside no authentication; the proxy chooses.

    Attributes:
        asked: whether the request was written: from then on silence may be the target's.
        bound: the answer; None until it came.
    """

    def __init__(self, target: str, port: int, credentials: Credentials | None = None) -> None:
        self.asked = False
        self.bound: Bound | None = None
        self._request = bytes((VERSION, _CONNECT, 0)) + _address(target) + port.to_bytes(2, "big")
        self._credentials = credentials
        methods = (_NO_AUTHENTICATION,) if credentials is None else (_NO_AUTHENTICATION, _PASSWORD)
        self._output = bytes((VERSION, len(methods), *methods))
        self._input = bytearray()
        self._stage = _Stage.METHOD
        self._wanted_bytes = 2

    @property
    def wanted_bytes(self) -> int:
        """How many bytes must come before anything else can be said; 0 when all is said."""
        return self._wanted_bytes - len(self._input)

    def take_output(self) -> bytes:
        """What must be written now; each byte is given once."""
        output, self._output = self._output, b""
        return output

    def receive(self, data: bytes) -> None:
        """Take bytes of the proxy, at most `wanted_bytes`; none at all: it closed the connection.

        Raises:
            ProxyError: it broke the protocol, wants another authentication, or refuses ours.
            TargetRefused: it answered that the target cannot be reached.
        """
        if not data:
            raise ProxyError("it closed the connection before it answered")
        if len(data) > self.wanted_bytes:
            raise ValueError(
                f"{len(data)} bytes, but only {self.wanted_bytes} are wanted: the others are not the proxy's"
            )
        self._input += data
        if not self.wanted_bytes:
            self._advance(bytes(self._input))

    def _advance(self, data: bytes) -> None:
        if self._stage is _Stage.METHOD:
            self._method(data)
        elif self._stage is _Stage.PASSWORD:
            if data[1] != 0:
                raise ProxyError("it refuses the user name and password")
            self._ask()
        elif self._stage is _Stage.HEAD:
            self._head(data)
        else:
            self._answer(data)

    def _method(self, data: bytes) -> None:
        version, method = data
        if version != VERSION:
            raise ProxyError(f"it does not speak SOCKS5: the first byte is {version:#04x}")
        if method == _NO_AUTHENTICATION:
            self._ask()
        elif method == _PASSWORD and self._credentials is not None:
            user, password = (part.encode() for part in (self._credentials.username, self._credentials.password))
            self._output = bytes((_PASSWORD_VERSION, len(user))) + user + bytes((len(password),)) + password
            self._expect(_Stage.PASSWORD, 2)
        elif method == _NOTHING_ACCEPTABLE:
            offered = "a user name and password" if self._credentials is not None else "no authentication"
            raise ProxyError(f"it does not accept {offered}")
        else:
            raise ProxyError(f"it chose the authentication method {method:#04x}, which was not offered")

    def _ask(self) -> None:
        self._output, self.asked = self._request, True
        self._expect(_Stage.HEAD, 5)

    def _head(self, data: bytes) -> None:
        """VER REP RSV ATYP and the first byte of the address, which is a name's length."""
        version, reply, _, kind, first = data
        if version != VERSION:
            raise ProxyError(f"its answer has the version {version:#04x}")
        if reply in ABOUT_THE_TARGET:
            raise TargetRefused(REPLIES[reply])
        if reply != 0:
            raise ProxyError(f"it answered {REPLIES.get(reply, f'with the unknown code {reply:#04x}')}")
        sizes = {_IPV4: 4, _IPV6: 16, _NAME: 1 + first}
        if kind not in sizes:
            raise ProxyError(f"its answer has the unknown address type {kind:#04x}")
        self._wanted_bytes = 4 + sizes[kind] + 2
        self._stage = _Stage.ADDRESS

    def _answer(self, data: bytes) -> None:
        kind, port = data[3], int.from_bytes(data[-2:], "big")
        if kind == _NAME:
            self.bound = Bound(None, port, data[5:-2].decode("utf-8", "replace"))
        else:
            self.bound = Bound(_unmapped(ip_address(data[4:-2])), port)
        self._stage = _Stage.DONE

    def _expect(self, stage: _Stage, size_bytes: int) -> None:
        self._stage = stage
        self._input.clear()
        self._wanted_bytes = size_bytes


def _address(text: str) -> bytes:
    address = ip_address(text)
    return bytes((_IPV4 if address.version == 4 else _IPV6,)) + address.packed


def _unmapped(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return address if mapped is None else mapped
