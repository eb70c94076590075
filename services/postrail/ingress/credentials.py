"""Passwords of submitters: argon2id in a few threads, with a short memory of what was right.

Owns the verification. An unknown name costs as much time as a known one. The memory holds keyed hashes, never a password.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from hashlib import blake2b
from pathlib import Path
from typing import Final

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from postrail.core.submission import Submitter
from postrail.shell import logs

LOG = logs.logger("ingress")
_THREADS: Final = 2
_REMEMBER_SECONDS: Final = 300.0
_REMEMBER_COUNT: Final = 1024


class Credentials:
    """Verifies a name and a password against the configured submitters."""

    def __init__(self, submitters: Iterable[Submitter]) -> None:
        self._hasher = PasswordHasher()
        self._submitters = {
            submitter.config.name.encode(): submitter
            for submitter in submitters
            if submitter.config.password_hash is not None or submitter.config.password_hash_file is not None
        }
        self._hashes = {name: _secret(submitter) for name, submitter in self._submitters.items()}
        # What an unknown name is verified against: the parameters of a real one, so that it takes as long.
        self._decoy = next(iter(self._hashes.values()), None) or self._hasher.hash(os.urandom(16))
        self._key = os.urandom(32)
        self._right_until: dict[bytes, float] = {}
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="argon2")
        self._under_way: dict[bytes, asyncio.Future[bool]] = {}

    async def verify(self, name: bytes, password: bytes) -> Submitter | None:
        """The submitter with this name and password; None when there is none."""
        loop = asyncio.get_running_loop()
        stored = self._hashes.get(name)
        token = blake2b(
            len(name).to_bytes(4, "big") + name + password + b"\0" + (stored or "").encode(), key=self._key
        ).digest()
        if stored is not None and self._right_until.get(token, 0.0) > loop.time():
            return self._submitters[name]
        verification = self._under_way.get(token)
        if verification is None:
            verification = loop.run_in_executor(self._pool, self._check, stored or self._decoy, password)
            self._under_way[token] = verification
            verification.add_done_callback(lambda _: self._under_way.pop(token, None))
        right = await asyncio.shield(verification)
        if not right or stored is None:
            return None
        if len(self._right_until) >= _REMEMBER_COUNT:
            self._right_until.clear()
        self._right_until[token] = loop.time() + _REMEMBER_SECONDS
        return self._submitters[name]

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _check(self, stored: str, password: bytes) -> bool:
        try:
            return self._hasher.verify(stored, password)
        except InvalidHashError:
            LOG.error("password_hash_unusable", advice="make it with: postrail password-hash")
            return False
        except VerificationError:
            return False


def _secret(submitter: Submitter) -> str:
    secret, file = submitter.config.password_hash, submitter.config.password_hash_file
    if secret is not None or file is None:
        return secret.get_secret_value() if secret is not None else ""
    try:
        return Path(file).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        advice = "nobody can sign in as this submitter: put what postrail password-hash prints into the file"
        LOG.error("password_hash_file_unreadable", submitter=submitter.config.name, reason=str(error), advice=advice)
        return ""
