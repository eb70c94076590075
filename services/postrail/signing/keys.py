"""The private keys: read from PEM files, checked, cached, read again when the files change; and the signing itself.

Owns the only code that touches a private key while mail flows. Never logs or returns one. A key that is missing or cannot be
used is an error for its domain, every time it is asked for: nothing is signed with part of a domain's keys.
Neighbours: `postrail.core.dkim` (what is signed), `postrail.signing.service` (keeps the mail back meanwhile).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from postrail.core.config import SigningConfig
from postrail.core.dkim_record import PublicKey

SHORTEST_RSA_BITS = 2048
FAILURE_KEPT_SECONDS = 5.0
"""After a failure the files are looked at again no sooner: thousands of messages may be waiting for them."""

_PADDING = padding.PKCS1v15()
_PREHASHED = Prehashed(hashes.SHA256())


class KeyUnavailable(Exception):
    """A domain's key cannot be used; the message names the domain, the file and what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Key:
    """A key that is ready to sign. `sign` takes a SHA-256 digest (RFC 6376 §3.3.2, RFC 8463 §3)."""

    selector: bytes
    algorithm: bytes
    sign: Callable[[bytes], bytes]


@dataclass(frozen=True, slots=True)
class _Cached:
    keys: tuple[Key, ...]
    failure: str
    seen: tuple[tuple[int, int, int], ...]
    look_again_at: float


class KeyRing:
    """The keys of all signing domains.

    Args:
        clock: seconds from any start, never going back.
    """

    def __init__(self, config: SigningConfig, clock: Callable[[], float]) -> None:
        self._config = config
        self._clock = clock
        self._cached: dict[str, _Cached] = {}

    def keys(self, domain: str) -> tuple[Key, ...]:
        """All keys of a signing domain of the configuration, in its order.

        Raises:
            KeyUnavailable: one of them cannot be used.
        """
        now = self._clock()
        cached = self._cached.get(domain)
        if cached is None or now >= cached.look_again_at:
            cached = self._cached[domain] = self._read(domain, now, cached)
        if cached.failure:
            raise KeyUnavailable(cached.failure)
        return cached.keys

    def _read(self, domain: str, now: float, before: _Cached | None) -> _Cached:
        found: list[Key] = []
        seen: list[tuple[int, int, int]] = []
        configured = self._config.domains[domain].keys
        later = now + self._config.key_reload_seconds
        try:
            seen = [_identity(Path(key.key_file)) for key in configured]
            if before is not None and not before.failure and before.seen == tuple(seen):
                return _Cached(before.keys, "", before.seen, later)
            found = [load_key(Path(key.key_file), key.selector) for key in configured]
        except (OSError, ValueError) as error:
            soon = now + min(FAILURE_KEPT_SECONDS, self._config.key_reload_seconds)
            return _Cached((), f"DKIM key of {domain}: {_plain(error)}", (), soon)
        return _Cached(tuple(found), "", tuple(seen), later)


def load_key(path: Path, selector: str) -> Key:
    """Read one key.

    Raises:
        OSError: the file cannot be read.
        ValueError: it holds no key that can sign; the message names it and says why.
    """
    private = load_private(path)
    name = selector.encode("ascii")
    if isinstance(private, RSAPrivateKey):
        rsa = private
        return Key(name, b"rsa-sha256", lambda digest: rsa.sign(digest, _PADDING, _PREHASHED))
    return Key(name, b"ed25519-sha256", private.sign)


def load_private(path: Path) -> RSAPrivateKey | Ed25519PrivateKey:
    """Read the private key of a PEM file; raises as `load_key`."""
    try:
        private = load_pem_private_key(path.read_bytes(), password=None)
    except TypeError as error:
        raise ValueError(f"{path} is encrypted; write it without a passphrase") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ValueError(f"{path} is no private key in PEM: {error}") from error
    if isinstance(private, RSAPrivateKey):
        if private.key_size < SHORTEST_RSA_BITS:
            raise ValueError(
                f"{path} has {private.key_size} bits; receivers want {SHORTEST_RSA_BITS} or more (RFC 8301)"
            )
        return private
    if isinstance(private, Ed25519PrivateKey):
        return private
    raise ValueError(f"{path} is neither an RSA nor an Ed25519 key")


def public_key(private: RSAPrivateKey | Ed25519PrivateKey) -> PublicKey:
    """What is published of a private key (RFC 6376 §3.6.1, RFC 8463 §4.2)."""
    public = private.public_key()
    if isinstance(public, RSAPublicKey):
        return PublicKey("rsa", public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))
    return PublicKey("ed25519", public.public_bytes(Encoding.Raw, PublicFormat.Raw))


def _identity(path: Path) -> tuple[int, int, int]:
    """Changes when the file is replaced or rewritten."""
    status = os.stat(path)  # noqa: PTH116  # on the way of mail, once for each domain and reload time
    return status.st_mtime_ns, status.st_ino, status.st_size


def _plain(error: OSError | ValueError) -> str:
    return f"{error.filename}: {error.strerror}" if isinstance(error, OSError) else str(error)
