"""From the objects to the one configuration file of all services, and to the files that belong to it.

Pure. What it writes is validated with the services' own model. An object that cannot be used is left out, and the composition's
faults say why; mail that is under way for it waits. Owns no addresses (`leases`) and no words of a status (`conditions`).
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from postrail.core.conditions import Reason
from postrail.core.config import Config
from postrail.core.kind_specs import BindingMode, DestinationSpec, SenderPoolSpec, SendingDomainSpec, SubmitterSpec
from postrail.core.sites import BUILT_IN, DEFAULT_GROUP
from postrail_operator import keys
from postrail_operator.leases import Claim, Lease, State, first_come, leases, of_sender_pool, pool_users
from postrail_operator.objects import Item, Objects

KEYS_DIRECTORY = "/etc/postrail/keys"
PROXY_DIRECTORY = "/etc/postrail/proxy"
NO_POOL = "default"
"""The pool of streams that no SenderPool has; without a SenderPool of this name it has no address, and its mail waits."""

Key = tuple[str, str]
"""Kind and name."""


@dataclass(frozen=True, slots=True)
class Fault:
    """Why an object is not in the configuration, or not as it says."""

    reason: Reason
    message: str


@dataclass(slots=True)
class Composition:
    """What the objects make.

    Attributes:
        config: the file's content; None where it would not be valid (`problem` says why), and the last one stays.
        files: by name, what lies in the folder of keys.
        faults: by object, the first thing that is wrong with it.
        notes: what a person should know that belongs to no object.
    """

    leases: Sequence[Lease]
    users: Mapping[str, str]
    config: dict[str, Any] | None = None
    model: Config | None = None
    problem: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    faults: dict[Key, Fault] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    selectors: dict[str, list[str]] = field(default_factory=dict)
    """By SendingDomain, the selectors that sign."""

    def fault(self, item: Item[Any], reason: Reason, message: str) -> None:
        """Remember the first fault of an object."""
        self.faults.setdefault(item.key, Fault(reason, message))


def compose(
    base: Mapping[str, Any], objects: Objects, drained: frozenset[str] = frozenset(), *, gateways: bool = False
) -> Composition:
    """The configuration that the objects make of the base.

    Args:
        base: what the chart knows: all but pools, submitters, signing domains and destinations.
        drained: as `leases`.
        gateways: whether the cluster takes policies for egress gateways. Without, mail of such pools waits.
    """
    users = pool_users(objects)
    made = Composition(leases(objects, users, drained), users)
    for item in objects.every:
        if item.spec is None:
            made.fault(item, Reason.INVALID_SPEC, item.problem)
    config = copy.deepcopy(dict(base))
    _pools(config, objects, made, gateways=gateways)
    _destinations(config, objects, made)
    _domains(config, objects, made)
    _submitters(config, objects, made)
    _listeners(config, made)
    try:
        made.model = Config.model_validate(config)
        made.config = config
    except ValidationError as error:
        made.problem = "; ".join(
            f"{'.'.join(map(str, problem['loc'])) or 'configuration'}: {problem['msg'].removeprefix('Value error, ')}"
            for problem in error.errors(include_url=False, include_input=False)
        )
        for item in objects.every:
            made.fault(
                item, Reason.CONFIGURATION_INVALID, f"all objects together make no valid configuration: {made.problem}"
            )
    return made


def _unique(items: Iterable[Item[Any]], names: Mapping[str, str], made: Composition, what: str) -> None:
    """Faults of those whose name (by object) an older object has."""
    present = [item for item in items if item.name in names]
    owners = first_come(Claim(names[item.name], item.name, item.age) for item in present)
    for item in present:
        owner = owners[names[item.name]]
        if owner != item.name:
            reason = Reason.STREAM_TAKEN if what == "stream" else Reason.NAME_TAKEN
            made.fault(
                item,
                reason,
                f"the {item.kind.name} {owner} has the {what} {names[item.name]}: change one, or delete one",
            )


def _pools(config: dict[str, Any], objects: Objects, made: Composition, *, gateways: bool) -> None:
    ip_pools = {item.name: item for item in objects.ip_pools}
    taken = {lease.ip_pool: lease for lease in reversed(made.leases) if lease.state is State.TAKEN}
    for name, lease in taken.items():
        others = [one.address.address for one in made.leases if one.ip_pool == name and one.state is State.TAKEN]
        text = f"the IPPool {lease.owner} has {', '.join(others)}: an address can be in one pool only; remove it from one of them"
        made.fault(ip_pools[name], Reason.ADDRESS_TAKEN, text)
    usable = [item for item in objects.sender_pools if item.spec is not None]
    _unique(usable, {item.name: item.spec.stream for item in usable if item.spec}, made, "stream")
    pools: dict[str, Any] = {item.name: {"sources": []} for item in objects.sender_pools}
    streams: dict[str, Any] = {}
    for item in usable:
        assert item.spec is not None
        if item.key not in made.faults:
            lifetime = item.spec.lifetime_seconds
            streams[item.spec.stream] = {"pool": item.name, "lane": item.spec.lane, "lifetime_seconds": lifetime}
        _check_sender_pool(item, item.spec, ip_pools, made, gateways=gateways)
        found = of_sender_pool(made.leases, item.name)
        pools[item.name]["sources"] = [_source(lease, ip_pools[lease.ip_pool], gateways=gateways) for lease in found]
    pools.setdefault(NO_POOL, {"sources": []})
    config["pools"] = pools
    config["streams"] = streams


def _check_sender_pool(
    item: Item[SenderPoolSpec],
    spec: SenderPoolSpec,
    ip_pools: Mapping[str, Item[Any]],
    made: Composition,
    *,
    gateways: bool,
) -> None:
    wanted = spec.ip_pool_ref.name
    user = made.users.get(wanted, "")
    if wanted not in ip_pools:
        made.fault(
            item, Reason.IP_POOL_MISSING, f"there is no IPPool {wanted}: make it, or name another one in ipPoolRef"
        )
    elif user != item.name:
        text = f"the SenderPool {user} has the IPPool {wanted}: an address sends for one pool only; name another one in ipPoolRef"
        made.fault(item, Reason.POOL_TAKEN, text)
    elif not gateways and by_gateway(ip_pools[wanted]):
        text = (
            f"the IPPool {wanted} is bound by an egress gateway, and the operator finds no CiliumEgressGatewayPolicy in this "
            "cluster: enable Cilium's egress gateway and the chart's operator.cilium; mail waits"
        )
        made.fault(item, Reason.NO_GATEWAY, text)
    elif not any(
        lease.address.weight for lease in of_sender_pool(made.leases, item.name) if lease.state is State.ACTIVE
    ):
        text = f"no address of the IPPool {wanted} can be used now: its status says why; mail waits"
        made.fault(item, Reason.NO_ADDRESS, text)


def by_gateway(ip_pool: Item[Any]) -> bool:
    """Whether the network translates to the addresses of an IPPool."""
    return ip_pool.spec is not None and ip_pool.spec.binding.mode is BindingMode.EGRESS_GATEWAY


def _source(lease: Lease, ip_pool: Item[Any], *, gateways: bool) -> dict[str, Any]:
    source = lease.address
    gateway = by_gateway(ip_pool)
    weight = source.weight if lease.state is State.ACTIVE and (gateways or not gateway) else 0
    made: dict[str, Any] = {"address": source.address, "ehlo": source.ehlo, "weight": weight}
    if gateway:
        # A pod leaves from one address. Mail for one that drains must not leave from its successor: no pod has the address, so
        # the mail waits, and gets the other address when it is due.
        return made | {"bind": "gateway"} if gateways and lease.state is not State.DRAINING else made
    binding = ip_pool.spec.binding if ip_pool.spec is not None else None
    proxy = source.proxy or (binding.proxy if binding is not None else None)
    if proxy is not None:
        made |= {"proxy": proxy}
        if binding is None or binding.mode is BindingMode.SOCKS5:
            made |= {"bind": "socks5"}
        if binding is not None and binding.proxy_login is not None:
            login = binding.proxy_login
            file = f"{PROXY_DIRECTORY}/{ip_pool.name}/{login.password_secret_ref.key}"
            made["proxy_login"] = {"username": login.username, "password_file": file}
    return made


def _destinations(config: dict[str, Any], objects: Objects, made: Composition) -> None:
    routing = config.setdefault("routing", {})
    delivery = config.setdefault("delivery", {})
    groups = list(routing.get("groups") or Config.model_fields["routing"].default.groups)
    providers = list(routing.get("providers", ()))
    limits = dict(delivery.get("provider_limits", {}))
    wanted = [name for item in objects.sender_pools if item.spec for name in item.spec.destinations]
    wanted += [item.spec.group for item in objects.destinations if item.spec and item.spec.group]
    groups += sorted(set(wanted) - set(groups))
    for item in objects.destinations:
        if item.spec is None or item.deleting:
            continue
        said = item.spec.limits.model_dump(mode="json", exclude_none=True, exclude_defaults=True)
        if item.name == DEFAULT_GROUP:
            delivery["default_limits"] = said
            continue
        provider = _provider(item.name, item.spec)
        if provider is None and item.name not in {one.name for one in BUILT_IN}:
            text = (
                "it names neither mxSuffixes nor domains, and no provider of this name is built in: say what it covers"
            )
            made.fault(item, Reason.COVERS_NOTHING, text)
            continue
        providers = [*(one for one in providers if one.get("name") != item.name), *([provider] if provider else ())]
        limits[item.name] = said
    routing["groups"] = groups
    routing["providers"] = providers
    delivery["provider_limits"] = limits


def _provider(name: str, spec: DestinationSpec) -> dict[str, Any] | None:
    """The provider of a Destination; None where a built-in one stays as it is."""
    suffixes, domains = list(spec.mx_suffixes), list(spec.domains)
    known = next((one for one in BUILT_IN if one.name == name), None)
    if not suffixes and known is not None and (domains or spec.group):
        suffixes = list(known.mx_suffixes)
    if not suffixes and not domains:
        return None
    made: dict[str, Any] = {"name": name, "mx_suffixes": suffixes, "domains": domains}
    return made | {"group": spec.group} if spec.group else made


def _domains(config: dict[str, Any], objects: Objects, made: Composition) -> None:
    usable = [item for item in objects.domains if item.spec is not None and not item.deleting]
    _unique(usable, {item.name: item.spec.domain for item in usable if item.spec}, made, "domain")
    signing: dict[str, Any] = {}
    for item in usable:
        if item.spec is not None and item.key not in made.faults:
            found = list(_keys_of(item, item.spec, objects, made))
            made.selectors[item.name] = [key["selector"] for key in found]
            if found:
                signing[item.spec.domain] = {"keys": found}
    config["signing"] = {**config.get("signing", {}), "domains": signing}


def _keys_of(
    item: Item[SendingDomainSpec], spec: SendingDomainSpec, objects: Objects, made: Composition
) -> Iterable[dict[str, str]]:
    for index, key in enumerate(spec.dkim.keys):
        where = f"spec.dkim.keys[{index}].secretRef"
        try:
            pem = keys.entry(objects.secrets, key.secret_ref)
            keys.public_key(pem)
        except keys.Missing as error:
            made.fault(item, Reason.SECRET_MISSING, f"{where}: {error}")
        except keys.Unusable as error:
            made.fault(item, Reason.SECRET_INVALID, f"{where}: {key.secret_ref.name}/{key.secret_ref.key}: {error}")
        else:
            file = f"{spec.domain}.{key.selector}.pem"
            made.files[file] = pem
            yield {"selector": key.selector, "key_file": f"{KEYS_DIRECTORY}/{file}"}


def username_of(item: Item[SubmitterSpec]) -> str:
    """The name with which a submitter signs in."""
    return (item.spec.username if item.spec is not None else None) or item.name


def _submitters(config: dict[str, Any], objects: Objects, made: Composition) -> None:
    usable = [item for item in objects.submitters if item.spec is not None and not item.deleting]
    _unique(usable, {item.name: username_of(item) for item in usable}, made, "username")
    submitters: list[dict[str, Any]] = []
    for item in usable:
        if item.spec is None or item.key in made.faults:
            continue
        missing = [name for name in (item.spec.stream, *item.spec.streams) if name not in config["streams"]]
        if missing:
            text = f"no SenderPool sends the stream {missing[0]}: make one, or choose another stream; it cannot submit until then"
            made.fault(item, Reason.STREAM_MISSING, text)
            continue
        rules = item.spec.model_dump(mode="json", exclude_none=True, exclude={"username", "password_secret_ref"})
        submitter = {"name": username_of(item), **rules}
        if item.spec.password_secret_ref is not None:
            file = f"submitter.{item.name}.hash"
            try:
                text = keys.password_hash(keys.entry(objects.secrets, item.spec.password_secret_ref))
            except keys.Missing as error:
                made.fault(item, Reason.SECRET_MISSING, f"spec.passwordSecretRef: {error}; it cannot submit until then")
                continue
            except keys.Unusable as error:
                made.fault(item, Reason.SECRET_INVALID, f"spec.passwordSecretRef: {error}; it cannot submit until then")
                continue
            made.files[file] = text.encode()
            submitter["password_hash_file"] = f"{KEYS_DIRECTORY}/{file}"
        submitters.append(submitter)
    config["submitters"] = submitters


def _listeners(config: dict[str, Any], made: Composition) -> None:
    """Leave out trusted listeners whose submitter does not exist (yet), so that the others work."""
    ingress = config.get("ingress", {})
    names = {submitter["name"] for submitter in config["submitters"]}
    kept = []
    for listener in ingress.get("listeners", ()):
        if listener.get("kind") == "trusted" and listener.get("submitter") not in names:
            made.notes.append(
                f"the listener on port {listener.get('port')} is left out: there is no Submitter {listener.get('submitter')}"
            )
        else:
            kept.append(listener)
    if ingress:
        config["ingress"] = {**ingress, "listeners": kept}
