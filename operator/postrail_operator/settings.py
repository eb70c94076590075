"""Where the operator runs and what things are called: from the environment that the chart gives it. It guesses nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

DAY_SECONDS = 86400


class SettingsError(Exception):
    """A variable is missing or wrong; the text says which."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What the environment says."""

    namespace: str
    """Where the objects, the services and the senders are."""
    senders_namespace: str
    """Where senders on the host network run."""
    release: str
    """The label app.kubernetes.io/instance, and the beginning of names."""
    config_secret: str = "postrail-config"  # noqa: S105  # a Secret's name
    """The Secret with the configuration file."""
    keys_secret: str = "postrail-keys"  # noqa: S105
    """The Secret with DKIM keys and password hashes."""
    base_file: str = "/etc/postrail/base/postrail.yaml"
    templates_directory: str = "/etc/postrail/templates"
    prometheus_url: str = ""
    """Empty: nothing is scaled by the operator, and deletions need a person where mail may wait."""
    peering: str = "postrail"
    """The KopfPeering by which several operators agree on who acts."""
    keda: bool = True
    """Make ScaledObjects where the cluster has KEDA; then the operator does not scale."""
    cilium: bool = False
    """Make policies for Cilium's egress gateway where the cluster takes them."""
    port: int = 9464
    """Of /livez, /readyz and /metrics."""
    checks: bool = True
    """Look at the addresses and domains in the DNS, and ask senders for their addresses."""
    check_seconds: float = 600.0
    """Until a check that passed is made again, about."""

    @property
    def direct_elsewhere(self) -> bool:
        """Whether senders on the host network have a namespace of their own."""
        return self.senders_namespace != self.namespace


_NAMES = {
    "namespace": "POSTRAIL_NAMESPACE",
    "senders_namespace": "POSTRAIL_SENDERS_NAMESPACE",
    "release": "POSTRAIL_RELEASE",
    "config_secret": "POSTRAIL_CONFIG_SECRET",
    "keys_secret": "POSTRAIL_KEYS_SECRET",
    "base_file": "POSTRAIL_BASE_FILE",
    "templates_directory": "POSTRAIL_TEMPLATES_DIR",
    "prometheus_url": "POSTRAIL_PROMETHEUS_URL",
    "peering": "POSTRAIL_PEERING",
}


def read_settings(environment: Mapping[str, str]) -> Settings:
    """The settings of an environment.

    Raises:
        SettingsError: a variable that is needed is missing, or one is wrong.
    """
    given = {field: environment[name] for field, name in _NAMES.items() if environment.get(name)}
    given.setdefault("senders_namespace", given.get("namespace", ""))
    for field in ("namespace", "release"):
        if field not in given:
            raise SettingsError(f"{_NAMES[field]} is not set: the chart sets it on the operator's Deployment")
    port = environment.get("POSTRAIL_PORT", "9464")
    if not port.isdecimal() or not 0 <= int(port) < 65536:
        raise SettingsError(f"POSTRAIL_PORT is {port!r}, which is no port")
    keda = environment.get("POSTRAIL_KEDA", "true")
    if keda not in {"true", "false"}:
        raise SettingsError(f"POSTRAIL_KEDA is {keda!r}: write true or false")
    cilium = environment.get("POSTRAIL_CILIUM", "false")
    if cilium not in {"true", "false"}:
        raise SettingsError(f"POSTRAIL_CILIUM is {cilium!r}: write true or false")
    checks = environment.get("POSTRAIL_CHECKS", "true")
    if checks not in {"true", "false"}:
        raise SettingsError(f"POSTRAIL_CHECKS is {checks!r}: write true or false")
    seconds = environment.get("POSTRAIL_CHECK_SECONDS", "600")
    if not seconds.isdecimal() or not 1 <= int(seconds) <= DAY_SECONDS:
        raise SettingsError(f"POSTRAIL_CHECK_SECONDS is {seconds!r}: write 1 to {DAY_SECONDS}")
    return Settings(
        **given,
        port=int(port),
        keda=keda == "true",
        cilium=cilium == "true",
        checks=checks == "true",
        check_seconds=float(seconds),
    )
