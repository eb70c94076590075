"""What DNS would publish of a private key, for verifiers in tests."""

from pathlib import Path

from postrail.core import dkim_record
from postrail.signing.keys import load_private, public_key


def published(file: Path) -> bytes:
    """The value of the TXT record of a PEM file's key."""
    return dkim_record.value(public_key(load_private(file))).encode("ascii")
