"""`kubectl postrail`: looks at mail in a cluster, and suspends, drains and quarantines.

trace, queue and explain run in a pod of a service, which has the configuration and the log. The others change the objects, and
the operator acts. Exit status 0: done; 1: it did not work, and standard error says why; 64: wrong usage; 69: no cluster, no pod
or no kubectl; 75: try again later; 77: not allowed; 78: the kubeconfig is wrong (sysexits.h). trace, queue and explain end as
the command in the pod does.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import NoReturn, Protocol

import postrail
from postrail.cli.exit_status import EXIT_TEMPORARY, EXIT_USAGE
from postrail.cli.kubectl import changes, pods
from postrail.cli.kubectl.changes import EVERY, Patch, Target
from postrail.cli.kubectl.client import Conflict, Connection, Kubectl, KubectlFailed, Object
from postrail.core.kinds import DESTINATION, GROUP, IP_POOL, SENDER_POOL, Kind

CONFIG_FILE = "/etc/postrail/config/postrail.yaml"
TRIES = 4
"""How often a change is made again that somebody else's change met."""
POLL_SECONDS = 5.0
SETTLE_SECONDS = 5.0
"""Between the operator's status and its changes to Deployments."""
ALL_RECORDS = "1000000"
Change = Callable[[Object], Patch | None]


class AddressChange(Protocol):
    """Makes the patch of an IPPool about one address; None where there is nothing to do."""

    def __call__(self, pool: Object, address: str) -> Patch | None: ...


_REMOTE = {
    "trace": ("tell a message's story", "MESSAGE-ID [--since TIME] [--json]"),
    "queue": (
        "show what waits, for where, since when and why",
        "[--messages] [--site SITE] [--source IP] [--limit N] [--json]",
    ),
    "explain": ("say how mail to an address would go", "ADDRESS [--stream STREAM] [--json]"),
}


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(EXIT_USAGE, f"{self.prog}: {message}; see {self.prog} --help\n")


def parser() -> argparse.ArgumentParser:
    """The command line. Options about the cluster may stand before the command or after it."""
    shared = _Parser(add_help=False, argument_default=argparse.SUPPRESS, allow_abbrev=False)
    shared.add_argument("--kubeconfig", metavar="FILE", help="default: as kubectl")
    shared.add_argument("--context", metavar="NAME", help="the kubeconfig's context; default: the present one")
    shared.add_argument("-n", "--namespace", metavar="NAME", help="the release's namespace; default: the context's")
    shared.add_argument("--release", metavar="NAME", help="which, where the namespace has several")
    top = _Parser(
        prog="kubectl postrail",
        description=(__doc__ or "").partition("\n\n")[2],
        parents=[shared],
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
    )
    top.add_argument("--version", action="version", version=f"postrail {postrail.__version__}")
    subparsers = top.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=_Parser)
    for name, (text, usage) in _REMOTE.items():
        told = f"%(prog)s [-h] [--kubeconfig FILE] [--context NAME] [-n NAME] [--release NAME] {usage}"
        described = f"Runs `postrail {name}` in a pod, with its arguments: {usage}"
        one = subparsers.add_parser(
            name, help=text, usage=told, description=described, parents=[shared], allow_abbrev=False
        )
        one.set_defaults(run=_remote)
    for name, (text, kinds, run) in _CHANGES.items():
        one = subparsers.add_parser(
            name, help=text, description=f"{text[0].upper()}{text[1:]}.", parents=[shared], allow_abbrev=False
        )
        one.add_argument("targets", nargs="+", metavar="TARGET", help=changes.choices(kinds))
        one.add_argument("--json", action="store_true", default=False, help="one JSON object a line")
        if name == "drain":
            one.add_argument("--wait", action="store_true", default=False, help="until no mail waits to leave from it")
            one.add_argument(
                "--timeout", type=float, default=3600.0, metavar="SECONDS", help="of --wait; default: %(default)g"
            )
        one.set_defaults(run=run)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit status."""
    top = parser()
    args, rest = top.parse_known_args(argv)
    if rest and args.command not in _REMOTE:
        top.error(f"{args.command} knows nothing of {' '.join(rest)}")
    args.rest = rest
    given = {name: getattr(args, name, None) for name in ("kubeconfig", "context", "namespace")}
    try:
        return int(args.run(args, Kubectl(Connection(**given))))
    except KubectlFailed as error:
        print(f"{args.command}: {error}", file=sys.stderr)
        return error.status
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 0


# what runs in a pod


def _remote(args: argparse.Namespace, kubectl: Kubectl) -> int:
    place = _place(args, kubectl)
    command = ["postrail", args.command, "--config", CONFIG_FILE, *args.rest]
    return kubectl.run_in_pod(place.pod, place.container, command)


def _place(args: argparse.Namespace, kubectl: Kubectl) -> pods.Place:
    found = kubectl.items("pods", f"--selector={pods.selector(getattr(args, 'release', None))}")
    return pods.choose(found, kubectl.connection.where)


# what changes objects


def _suspend(args: argparse.Namespace, kubectl: Kubectl) -> int:
    for one in _targets(args, (SENDER_POOL, DESTINATION)):
        changed = _apply(kubectl, one, partial(changes.suspended, kind=one.kind, suspend=True))
        _tell(args, one, changed, "is suspended: nothing is sent, and mail waits", "resume")
        if one == Target(DESTINATION, "default"):
            _note("default stands for every site whose own Destination does not say limits.suspend: false")
    return 0


def _resume(args: argparse.Namespace, kubectl: Kubectl) -> int:
    for one in _targets(args, (SENDER_POOL, DESTINATION, IP_POOL)):
        if one.kind is IP_POOL:
            _addresses(args, kubectl, one, changes.resumed, "gets mail again as its weight says", "drain")
            continue
        changed = _apply(kubectl, one, partial(changes.suspended, kind=one.kind, suspend=False))
        _tell(args, one, changed, "sends again; mail that was put off comes back within minutes", "suspend")
    return 0


def _drain(args: argparse.Namespace, kubectl: Kubectl) -> int:
    for one in _targets(args, (IP_POOL,)):
        text = "gets no new mail; what waits to leave from it is still sent"
        drained = _addresses(args, kubectl, one, changes.drained, text, "resume")
        if args.wait:
            deadline = time.monotonic() + args.timeout
            for name, generation, address in drained:
                _wait_until_empty(args, kubectl, name, generation, address, deadline)
    return 0


def _quarantine(args: argparse.Namespace, kubectl: Kubectl) -> int:
    for one in _targets(args, (IP_POOL,)):
        _listed(args, kubectl, one, changes.quarantined, "is in quarantine: it gets no new mail", "release")
    return 0


def _release(args: argparse.Namespace, kubectl: Kubectl) -> int:
    for one in _targets(args, (IP_POOL,)):
        _listed(args, kubectl, one, changes.released, "is out of quarantine", "quarantine")
    return 0


def _targets(args: argparse.Namespace, kinds: tuple[Kind, ...]) -> list[Target]:
    return [changes.target(text, kinds) for text in args.targets]


def _listed(
    args: argparse.Namespace,
    kubectl: Kubectl,
    one: Target,
    change: AddressChange,
    text: str,
    back: str,
) -> None:
    """Change the annotation about an address, or about all of a pool."""
    name = one.name or _pool_name(kubectl, one.address)
    address = one.address or EVERY
    changed = _apply(kubectl, Target(IP_POOL, name), partial(change, address=address))
    _tell(args, one, changed, text, back, pool=name)


def _addresses(
    args: argparse.Namespace,
    kubectl: Kubectl,
    one: Target,
    change: AddressChange,
    text: str,
    back: str,
) -> list[tuple[str, int, str]]:
    """Change the weight of an address, or of all of a pool; returns pool, its generation and address of each."""
    name = one.name or _pool_name(kubectl, one.address)
    pool = Target(IP_POOL, name)
    every = [one.address] if one.address else changes.addresses_of(_get(kubectl, pool))
    for address in every:
        changed = _apply(kubectl, pool, partial(change, address=address))
        _tell(args, Target(IP_POOL, address=address), changed, text, back, pool=name)
    generation = int(_get(kubectl, pool)["metadata"].get("generation", 0))
    return [(name, generation, address) for address in every]


def _pool_name(kubectl: Kubectl, address: str) -> str:
    found = changes.pool_of(address, kubectl.items(_resource(IP_POOL)), kubectl.connection.where)
    return str(found["metadata"]["name"])


def _resource(kind: Kind) -> str:
    return f"{kind.plural}.{GROUP}"


def _get(kubectl: Kubectl, one: Target) -> Object:
    return kubectl.get(_resource(one.kind), one.name)


def _apply(kubectl: Kubectl, one: Target, change: Change) -> bool:
    """Make a change; made again where somebody else changed the object meanwhile. Whether there was anything to do."""
    for tried in range(1, TRIES + 1):
        found = _get(kubectl, one)
        patch = change(found)
        if patch is None:
            return False
        if one.kind is IP_POOL and not changes.usable(found, patch) and changes.usable(found, None):
            _note(f"no address of the IPPool {one.name} gets new mail any more: mail of its SenderPool waits")
        try:
            kubectl.patch(_resource(one.kind), one.name, patch)
        except Conflict:
            if tried == TRIES:
                raise
        else:
            return True
    raise AssertionError("unreachable")


def _tell(args: argparse.Namespace, one: Target, changed: bool, text: str, back: str, *, pool: str = "") -> None:
    named = one.address or f"{one.kind.singular}/{one.name}"
    if args.json:
        about = {"command": args.command, "target": named, "changed": changed} | ({"ippool": pool} if pool else {})
        print(json.dumps(about))
        return
    print(
        f"{named}{f' (ippool/{pool})' if pool and one.address else ''} {text}{'' if changed else ' (it was so already)'}"
    )
    if changed:
        print(f"  to undo: kubectl postrail {back} {named}")


def _note(text: str) -> None:
    print(f"note: {text}", file=sys.stderr)


# draining


def _wait_until_empty(
    args: argparse.Namespace, kubectl: Kubectl, name: str, generation: int, address: str, deadline: float
) -> None:
    """Wait until the operator and routing know of the change, and nothing waits to leave from the address."""
    while int(_get(kubectl, Target(IP_POOL, name)).get("status", {}).get("observedGeneration", 0)) < generation:
        _pause(deadline, f"the operator has not looked at ippool/{name} yet: look at its log")
    time.sleep(SETTLE_SECONDS)
    place = _place(args, kubectl)
    routing = f"{pods.selector(place.release)},{pods.COMPONENT}=routing"
    kubectl.wait_for_rollout(routing, max(1.0, deadline - time.monotonic()))
    place = _place(args, kubectl)
    command = [
        "postrail",
        "queue",
        "--config",
        CONFIG_FILE,
        "--json",
        "--messages",
        "--source",
        address,
        "--limit",
        ALL_RECORDS,
    ]
    while waiting := kubectl.read_in_pod(place.pod, place.container, command).count("\n"):
        _pause(deadline, f"{waiting} deliveries still wait to leave from {address}")
    if not args.json:
        print(f"{address} is drained: nothing waits to leave from it")


def _pause(deadline: float, state: str) -> None:
    if time.monotonic() + POLL_SECONDS > deadline:
        raise KubectlFailed(f"{state}; waited long enough (--timeout)", EXIT_TEMPORARY)
    time.sleep(POLL_SECONDS)


_CHANGES: dict[str, tuple[str, tuple[Kind, ...], Callable[[argparse.Namespace, Kubectl], int]]] = {
    "suspend": ("send nothing, and let mail wait", (SENDER_POOL, DESTINATION), _suspend),
    "resume": (
        "end a suspension, or give mail to a drained address again",
        (SENDER_POOL, DESTINATION, IP_POOL),
        _resume,
    ),
    "drain": ("give no new mail to an address; what waits to leave from it is sent", (IP_POOL,), _drain),
    "quarantine": ("take an address out of use until it is released", (IP_POOL,), _quarantine),
    "release": ("end the quarantine of an address", (IP_POOL,), _release),
}

if __name__ == "__main__":
    raise SystemExit(main())
