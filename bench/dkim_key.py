"""The one DKIM key that every system signs with. Owns: making it and showing it in the forms that they read."""

import base64
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

SENDER_DOMAIN = "sender.test"
SELECTOR = "bench"
_KEY_BITS = 2048


@dataclass(frozen=True, slots=True)
class DkimKey:
    """An RSA-2048 key pair: the private key's PEM file (PKCS #1) and the public key's DNS record."""

    private_key_file: Path
    public_record: str

    @property
    def private_pem(self) -> str:
        """The private key as PEM text."""
        return self.private_key_file.read_text()


def make_dkim_key(directory: Path) -> DkimKey:
    """Make a key, write its PEM file into ``directory`` and return it."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=_KEY_BITS)
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    file = directory / "dkim.pem"
    file.write_bytes(pem)
    file.chmod(0o644)
    return DkimKey(file, f"v=DKIM1; k=rsa; p={base64.b64encode(public).decode()}")
