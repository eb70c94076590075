"""`postrail dkim`: make a DKIM key, and check that DNS publishes what a key file holds.

Writes private keys with mode 0600 and never over another file. Neighbours: `postrail.core.dkim_record` (the record's text),
`postrail.shell.checks.domain` (asks the DNS), `postrail.signing.keys` (reads keys as the signing service does).
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from postrail.cli.exit_status import EXIT_CONFIGURATION
from postrail.core import dkim_record
from postrail.core.address import BadAddress, ascii_domain
from postrail.core.checks import CheckResult, Verdict
from postrail.core.config import Config, KeyConfig
from postrail.shell import configuration
from postrail.shell.checks import domain as checks
from postrail.shell.dns import Resolver
from postrail.signing.keys import SHORTEST_RSA_BITS, load_private, public_key

EXIT_FAILURE = 1
LONGEST_RSA_BITS = 4096


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = subparsers.add_parser("dkim", help="make and check DKIM keys", description=__doc__)
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    generate = actions.add_parser("generate", help="make keys and print what to publish and to configure")
    generate.add_argument("domain", help="the signing domain, such as example.com")
    generate.add_argument("--selector", default="postrail", help="names the key; -rsa or -ed25519 is added with both")
    generate.add_argument("--algorithm", choices=("rsa", "ed25519", "both"), default="both")
    generate.add_argument("--bits", type=int, default=SHORTEST_RSA_BITS, help="RSA only: 2048 to 4096")
    generate.add_argument("--directory", type=Path, default=Path(), help="where the key files go")
    generate.set_defaults(run=run, act=_generate)
    check = actions.add_parser("check", help="compare the configured keys of a domain with what DNS publishes")
    check.add_argument("domain", help="a domain under signing.domains")
    check.add_argument("--config", type=Path, required=True)
    check.set_defaults(run=run, act=_check)


def run(args: argparse.Namespace) -> int:
    """Run the chosen action; 0, or 1 or 78 with the reason on standard error."""
    try:
        return int(args.act(args))
    except configuration.ConfigurationError as error:
        print(error, file=sys.stderr)
        return EXIT_CONFIGURATION
    except OSError as error:
        print(f"postrail dkim: {error.filename}: {error.strerror}", file=sys.stderr)
    except ValueError as error:
        print(f"postrail dkim: {error}", file=sys.stderr)
    return EXIT_FAILURE


def _generate(args: argparse.Namespace) -> int:
    domain = _domain(args.domain)
    if not SHORTEST_RSA_BITS <= args.bits <= LONGEST_RSA_BITS:
        raise ValueError(f"--bits {args.bits}: RSA keys have {SHORTEST_RSA_BITS} to {LONGEST_RSA_BITS} bits here")
    wanted = ("rsa", "ed25519") if args.algorithm == "both" else (args.algorithm,)
    selectors = {kind: f"{args.selector}-{kind}" if len(wanted) > 1 else args.selector for kind in wanted}
    files = {kind: args.directory / f"{domain}.{selector}.pem" for kind, selector in selectors.items()}
    configured = [KeyConfig(selector=selectors[kind], key_file=str(files[kind].absolute())) for kind in wanted]
    for file in files.values():
        if file.exists():
            raise ValueError(f"{file} exists and is not overwritten: choose another --selector, or move it away")
    args.directory.mkdir(mode=0o750, parents=True, exist_ok=True)
    for kind in wanted:
        private = Ed25519PrivateKey.generate() if kind == "ed25519" else generate_private_key(65537, args.bits)
        _write(files[kind], private)
        public = public_key(private)
        print(f"; {kind}: {files[kind]}")
        print(f"; as a zone file has it:\n{dkim_record.zone_line(selectors[kind], domain, public)}")
        print(
            f"; as a form asks for it: TXT at {dkim_record.name(selectors[kind], domain)}\n{dkim_record.value(public)}\n"
        )
    print("# Publish the records, wait until they are seen (postrail dkim check), then add to the configuration:")
    print(f"signing:\n  domains:\n    {domain}:\n      keys:")
    for key in configured:
        print(f"        - selector: {key.selector}\n          key_file: {key.key_file}")
    return 0


def _domain(text: str) -> str:
    try:
        return ascii_domain(text.strip().rstrip("."))
    except BadAddress as error:
        raise ValueError(str(error)) from error


def _write(file: Path, private: RSAPrivateKey | Ed25519PrivateKey) -> None:
    content = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as out:
        out.write(content)
        out.flush()
        os.fsync(out.fileno())


def _check(args: argparse.Namespace) -> int:
    config = configuration.load(args.config)
    domain = _domain(args.domain)
    if domain not in config.signing.domains:
        raise ValueError(f"{args.config}: {domain} is not under signing.domains")
    keys = config.signing.domains[domain].keys
    results = asyncio.run(_compare(config, domain, keys))
    for key, result in zip(keys, results, strict=True):
        if result.verdict is Verdict.PASSED:
            print(f"{result.subject}: matches {key.key_file}")
            continue
        print(f"{result.subject}: {result.found}\n  {result.advice}", file=sys.stderr)
        if result.record is not None:
            print(f"  publish this TXT record: {result.record.value}", file=sys.stderr)
    return 0 if all(result.verdict is Verdict.PASSED for result in results) else EXIT_FAILURE


async def _compare(config: Config, domain: str, keys: Sequence[KeyConfig]) -> list[CheckResult]:
    """How each key and its record agree."""
    publics = [public_key(load_private(Path(key.key_file))) for key in keys]
    resolver = Resolver(config.routing.dns)
    try:
        return [
            await checks.dkim(resolver, domain, key.selector, public) for key, public in zip(keys, publics, strict=True)
        ]
    finally:
        await resolver.close()
