"""Reading the configuration file, and the checks of it that need the machine.

Owns the messages that a person sees when the file is wrong: each names the place in the file and what to do. The shape
and the checks within the file are `postrail.core.config`.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path

import yaml
from pydantic import ValidationError

from postrail.core.config import Config
from postrail.core.egress_config import Bind
from postrail.core.ingress_config import ListenerKind

DEFAULT_PATH = Path("postrail.yaml")


class ConfigurationError(Exception):
    """The configuration cannot be used; the text has one problem a line."""


def load(path: Path) -> Config:
    """Read and validate the file; relative file names in it are relative to its folder.

    Raises:
        ConfigurationError: the file is missing, is no YAML, or has wrong or unknown fields.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise ConfigurationError(f"{path}: no such file; write one with: postrail init {path}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path}: cannot be read: {error}") from error
    try:
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigurationError(f"{path}: not valid YAML: {error}") from error
    if not isinstance(data, dict):
        raise ConfigurationError(f"{path}: must be a mapping of sections, such as hostname: mail.example.com")
    return validate(_absolute(data, path.resolve().parent), str(path))


def validate(data: dict[str, object], source: str) -> Config:
    """The configuration in these plain values.

    Raises:
        ConfigurationError: wrong or unknown fields; each line is `source: path.of.field: what is wrong`.
    """
    try:
        return Config.model_validate(data)
    except ValidationError as error:
        lines = []
        for problem in error.errors(include_url=False, include_input=False):
            where = ".".join(str(part) for part in problem["loc"]) or "(the whole file)"
            lines.append(f"{source}: {where}: {problem['msg'].removeprefix('Value error, ')}")
        raise ConfigurationError("\n".join(lines)) from error


_FILE_FIELDS = frozenset(
    {
        "data_directory",
        "certificate_file",
        "key_file",
        "ca_file",
        "password_file",
        "password_hash_file",
        "secret_access_key_file",
        "file",
    }
)


def _absolute(data: dict[str, object], folder: Path) -> dict[str, object]:
    def walk(value: object, name: str) -> object:
        if isinstance(value, dict):
            return {key: walk(inner, str(key)) for key, inner in value.items()}
        if isinstance(value, list):
            return [walk(inner, name) for inner in value]
        if name in _FILE_FIELDS and isinstance(value, str):
            return str(folder / value)
        return value

    return {key: walk(value, key) for key, value in data.items()}


def check_machine(config: Config) -> list[str]:
    """What of this configuration cannot work on this machine, a line each: files, addresses, permissions."""
    return [*_files(config), *_addresses(config), *_data_directory(config)]


def _readable(name: str, where: str) -> Iterator[str]:
    try:
        exists = Path(name).is_file()
    except PermissionError:  # it is in a folder that this user cannot enter
        exists = True
    if not exists:
        yield f"{where}: {name} does not exist"
    elif not os.access(name, os.R_OK):
        yield f"{where}: {name} cannot be read by this user"


def _files(config: Config) -> Iterator[str]:
    if config.ingress.tls is not None:
        yield from _readable(config.ingress.tls.certificate_file, "ingress.tls.certificate_file")
        yield from _readable(config.ingress.tls.key_file, "ingress.tls.key_file")
    for index, submitter in enumerate(config.submitters):
        if submitter.password_hash_file is not None:
            yield from _readable(submitter.password_hash_file, f"submitters.{index}.password_hash_file")
    yield from _kafka_files(config)
    yield from _s3_files(config)
    for pool_name, pool in config.pools.items():
        for source in pool.sources:
            if source.proxy_login is not None:
                where = f"pools.{pool_name}.sources ({source.address}): proxy_login.password_file"
                yield from _readable(source.proxy_login.password_file, where)
    for domain, signing in config.signing.domains.items():
        for index, key in enumerate(signing.keys):
            for problem in _readable(key.key_file, f"signing.domains.{domain}.keys.{index}.key_file"):
                yield f"{problem}; make one with: postrail dkim generate {domain} --selector {key.selector}"


def _kafka_files(config: Config) -> Iterator[str]:
    kafka = config.log.kafka
    if config.log.kind != "kafka" or kafka is None:
        return
    files = (
        ("tls.ca_file", kafka.tls.ca_file),
        ("tls.certificate_file", kafka.tls.certificate_file),
        ("tls.key_file", kafka.tls.key_file),
        ("sasl.password_file", None if kafka.sasl is None else kafka.sasl.password_file),
    )
    for where, name in files:
        if name is not None:
            yield from _readable(name, f"log.kafka.{where}")


def _s3_files(config: Config) -> Iterator[str]:
    s3 = config.blobs.s3
    if s3 is not None:
        for field, name in (("ca_file", s3.ca_file), ("secret_access_key_file", s3.secret_access_key_file)):
            if name is not None:
                yield from _readable(name, f"blobs.s3.{field}")


def can_bind(address: str, port: int = 0) -> OSError | None:
    """Why a TCP socket cannot be bound to the address and port; None when it can."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((address, port))
    except OSError as error:
        return error
    return None


def _addresses(config: Config) -> Iterator[str]:
    for pool_name, pool in config.pools.items():
        for source in pool.sources:
            if source.bind is Bind.DIRECT and source.proxy is None and can_bind(source.address) is not None:
                yield (
                    f"pools.{pool_name}.sources: {source.address} is not an address of this machine, so mail cannot "
                    "leave from it; add it to an interface, set bind: socks5 with a proxy that has it, or remove it here"
                )
    for index, listener in enumerate(config.ingress.listeners):
        error = can_bind(listener.address, listener.port)
        if error is not None:
            where = (
                f"ingress.listeners.{index}: cannot listen on {listener.address} port {listener.port}: {error.strerror}"
            )
            yield where + (_low_port_advice(listener.kind, listener.port) if isinstance(error, PermissionError) else "")


def _low_port_advice(kind: ListenerKind, port: int) -> str:
    return (
        f"; ports below 1024 need CAP_NET_BIND_SERVICE (for {kind}, port {port}): grant it, or use a higher port and "
        "redirect to it"
    )


def _data_directory(config: Config) -> Iterator[str]:
    directory = Path(config.data_directory)
    # not Path.exists, which fails in a folder that this user cannot enter
    existing = next(folder for folder in (directory, *directory.parents) if os.path.exists(folder))  # noqa: PTH110
    if not existing.is_dir():
        yield f"data_directory: {existing} is not a folder"
    elif not os.access(existing, os.W_OK | os.X_OK):
        yield f"data_directory: {existing} cannot be written by this user"


def make_data_directory(config: Config) -> None:
    """Make the data directory where it is missing.

    Raises:
        ConfigurationError: it cannot be made, or not be written.
    """
    problem = next(_data_directory(config), None)
    if problem is None:
        try:
            Path(config.data_directory).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            problem = f"data_directory: {config.data_directory} cannot be made: {error.strerror}"
    if problem is not None:
        raise ConfigurationError(f"{problem}; name another folder, or let this user write it")


def worker_directories(config: Config) -> Sequence[Path]:
    """The folders of all workers that ever ran here, by number."""
    root = Path(config.data_directory)
    found = [path for path in root.glob("worker-*") if path.is_dir() and path.name[7:].isdigit()]
    return sorted(found, key=lambda path: int(path.name[7:]))
