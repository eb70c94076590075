"""Finds the programs that tests run beside Postrail: mail servers, name servers, tracers.

Owns the rule that a missing program skips a test on a laptop and fails it in the CI, and the list of the Debian packages that
bring the programs. It starts nothing. Its neighbours: .ci/packages (the same packages, installed by .ci/run), and the test
modules, which call `require_tool` in a fixture.
"""

import os
import shutil

import pytest

from tools.helm import helm

DEBIAN_PACKAGES = {
    "cc": "gcc libc6-dev",
    "danted": "dante-server",
    "dig": "bind9-dnsutils",
    "dkimproxy-verify": "libmail-dkim-perl",
    "dovecot": "dovecot-core dovecot-lmtpd",
    "kubectl": "kubernetes-client",
    "lmtp": "dovecot-lmtpd",
    "ip": "iproute2",
    "java": "default-jre-headless",
    "knotd": "knot",
    "master": "postfix",
    "microsocks": "microsocks",
    "mvn": "maven",
    "opendkim": "opendkim",
    "opendkim-testmsg": "opendkim-tools",
    "openssl": "openssl",
    "perl": "perl",
    "postconf": "postfix",
    "postfix": "postfix",
    "postmap": "postfix",
    "prometheus": "prometheus",
    "promtool": "prometheus",
    "smtp-sink": "postfix",
    "smtp-source": "postfix",
    "strace": "strace",
    "swaks": "swaks libnet-ssleay-perl",
    "unbound": "unbound",
}
"""Program → the Debian packages that bring it, with what it needs here."""

BUILT_BY_MAKE = {"helm": "helm"}
"""Program → the target of the Makefile that builds it into the cache."""

_FOLDERS_OUTSIDE_PATH = (
    str(helm().parent),
    "/usr/local/sbin",
    "/usr/sbin",
    "/sbin",
    "/usr/lib/postfix/sbin",
    "/usr/libexec/postfix",
    "/usr/lib/dovecot",
    "/usr/libexec/dovecot",
    "/usr/libexec",
    "/opt/homebrew/sbin",
)


def find_tool(name: str) -> str | None:
    """Return the program's path, looking through PATH and then where distributions put daemons; None when it is missing."""
    return shutil.which(name) or shutil.which(name, path=os.pathsep.join(_FOLDERS_OUTSIDE_PATH))


def in_ci() -> bool:
    """Whether this run must not skip: the environment variable CI is set to something other than 0, false or no."""
    return os.environ.get("CI", "").lower() not in {"", "0", "false", "no"}


def require_tool(name: str, why: str) -> str:
    """Return the path of a program that a test runs.

    Args:
        name: the program, such as "postfix".
        why: what the test does with it, for the reason that a person reads.

    Raises:
        pytest.skip.Exception: the program is missing on a laptop.
        pytest.fail.Exception: the program is missing in the CI.
    """
    path = find_tool(name)
    if path is not None:
        return path
    if name in BUILT_BY_MAKE:
        reason = f"{name} is missing: {why}; build it with: make {BUILT_BY_MAKE[name]}"
    else:
        reason = f"{name} is missing: {why}; on Debian: apt-get install {DEBIAN_PACKAGES.get(name, name)}"
    if in_ci():
        pytest.fail(f"{reason} (and let .ci/run do so)", pytrace=False)
    pytest.skip(reason)
