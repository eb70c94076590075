"""Real SOCKS5 proxies on loopback ports: Dante, which says which address it bound, and microsocks, which does not.

Owns their configuration and their end. Each binds all its connections to one address. Its neighbour: `processes`, which starts
programs.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from tests.support.processes import Daemon, accepts, daemon_folder, free_port
from tests.support.tools import require_tool

ADDRESS = "127.0.0.1"

_DANTE = """\
logoutput: stderr
internal: {address} port = {port}
external: {source}
clientmethod: none
socksmethod: none
user.privileged: nobody
user.unprivileged: nobody
client pass {{ from: 127.0.0.0/8 to: 0/0 }}
socks pass {{ from: 127.0.0.0/8 to: 0/0 command: connect }}
"""


@contextlib.contextmanager
def dante(source: str, port: int = 0) -> Iterator[str]:
    """A proxy that binds `source`; yields its address as the configuration wants it."""
    program = require_tool("danted", "it is the egress proxy of the sender's tests")
    port = port or free_port()
    with daemon_folder("dante") as folder:
        configuration = folder / "danted.conf"
        configuration.write_text(_DANTE.format(address=ADDRESS, port=port, source=source), encoding="utf-8")
        daemon = Daemon([program, "-f", configuration, "-p", folder / "danted.pid"], folder / "log")
        try:
            daemon.wait_until(f"listens on port {port}", lambda: accepts(ADDRESS, port))
            yield f"socks5://{ADDRESS}:{port}"
        finally:
            daemon.stop()


@contextlib.contextmanager
def microsocks(source: str, *, user: str = "", password: str = "") -> Iterator[str]:
    """A proxy that binds `source` and answers 0.0.0.0; with a user it demands the password (RFC 1929)."""
    program = require_tool("microsocks", "it is an egress proxy that does not say which address it bound")
    port = free_port()
    login = ["-u", user, "-P", password] if user else []
    with daemon_folder("microsocks") as folder:
        daemon = Daemon([program, "-i", ADDRESS, "-p", str(port), "-b", source, *login], folder / "log")
        try:
            daemon.wait_until(f"listens on port {port}", lambda: accepts(ADDRESS, port))
            yield f"socks5://{ADDRESS}:{port}"
        finally:
            daemon.stop()
