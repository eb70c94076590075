"""What Secrets hold: DKIM keys and password hashes. Says what is wrong with one, and what the DNS must have for a key.

Never shows a private key or a hash in a message.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

from postrail.core.dkim_record import PublicKey
from postrail.core.kind_specs import SecretKeyRef

SHORTEST_RSA_BITS = 2048
Secrets = Mapping[str, Mapping[str, bytes]]


class Missing(Exception):
    """The Secret or its entry does not exist; the text says which."""


class Unusable(Exception):
    """The entry is not what it must be; the text says why."""


def entry(secrets: Secrets, ref: SecretKeyRef) -> bytes:
    """The entry of a Secret.

    Raises:
        Missing: the Secret or the entry does not exist.
    """
    secret = secrets.get(ref.name)
    if secret is None:
        raise Missing(f"there is no Secret {ref.name}")
    if ref.key not in secret:
        raise Missing(f"the Secret {ref.name} has no entry {ref.key}; it has: {', '.join(sorted(secret)) or 'none'}")
    return secret[ref.key]


@lru_cache(maxsize=4096)
def public_key(pem: bytes) -> PublicKey:
    """What the DNS must have for a private key.

    Raises:
        Unusable: no key, or one that nobody would accept.
    """
    try:
        private = serialization.load_pem_private_key(pem, password=None)
    except (ValueError, TypeError) as error:
        raise Unusable("no private key in PEM without a password; make one with: postrail dkim generate") from error
    if isinstance(private, Ed25519PrivateKey):
        return PublicKey("ed25519", private.public_key().public_bytes_raw())
    if not isinstance(private, RSAPrivateKey):
        raise Unusable("the key is neither RSA nor Ed25519; make one with: postrail dkim generate")
    if private.key_size < SHORTEST_RSA_BITS:
        raise Unusable(f"the RSA key has {private.key_size} bits; receivers want {SHORTEST_RSA_BITS} or more")
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return PublicKey("rsa", private.public_key().public_bytes(serialization.Encoding.DER, form))


def password_hash(data: bytes) -> str:
    """A password's hash.

    Raises:
        Unusable: it is none.
    """
    text = data.decode("utf-8", errors="replace").strip()
    if not text.startswith("$argon2"):
        raise Unusable("no argon2 hash; put in what postrail password-hash prints")
    return text
