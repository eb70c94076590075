"""`postrail dkim`: make a DKIM key, and check that DNS publishes what a key file holds.

Writes private keys with mode 0600 and never over another file. Neighbours: `postrail.core.dkim_record` (the record's text),
`postrail.signing.keys` (reads keys as the signing service does).
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import dns.exception
import dns.resolver
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from postrail.cli.exit_status import EXIT_CONFIGURATION
from postrail.core import dkim_record
from postrail.core.address import BadAddress, ascii_domain
from postrail.core.config import Config, KeyConfig
from postrail.shell import configuration
from postrail.signing.keys import SHORTEST_RSA_BITS, load_private, public_key

EXIT_FAILURE = 1
LONGEST_RSA_BITS = 4096
LOOKUP_SECONDS = 10.0


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
    results = [_compare(domain, key, _resolver(config)) for key in config.signing.domains[domain].keys]
    return 0 if all(results) else EXIT_FAILURE


def _resolver(config: Config) -> dns.resolver.Resolver:
    servers = config.routing.dns.nameservers
    resolver = dns.resolver.Resolver(configure=not servers)
    resolver.lifetime = LOOKUP_SECONDS
    nameservers: list[str] = []
    for server in servers:
        host, _, port = server.rpartition(":") if server.count(":") == 1 or "]:" in server else (server, "", "")
        host = host.strip("[]")
        nameservers.append(host)
        if port:
            resolver.nameserver_ports[host] = int(port)
    if nameservers:
        resolver.nameservers = nameservers
    return resolver


def _compare(domain: str, key: KeyConfig, resolver: dns.resolver.Resolver) -> bool:
    """Print how one key and its record agree; whether they do."""
    name = dkim_record.name(key.selector, domain)
    public = public_key(load_private(Path(key.key_file)))
    try:
        answer = resolver.resolve(name + ".", "TXT")
        published = dkim_record.parse(b"".join(next(iter(answer)).strings).decode("utf-8", "replace"))
    except (dns.exception.DNSException, ValueError) as error:
        print(f"{name}: {error}\n  publish this TXT record: {dkim_record.value(public)}", file=sys.stderr)
        return False
    if published != public:
        print(f"{name}: DNS publishes another key than {key.key_file} holds", file=sys.stderr)
        print(f"  publish this TXT record: {dkim_record.value(public)}", file=sys.stderr)
        return False
    print(f"{name}: matches {key.key_file}")
    return True
