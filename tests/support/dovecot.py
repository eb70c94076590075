"""Dovecot as the store of local domains: an instance of its own that takes mail over LMTP, by TCP and by a Unix socket.

Owns the instance's folder, its users and its processes. Users are named before it starts; whoever was not is unknown to it. The
domain of an address does not matter. Needs root, as Dovecot does. Its neighbour: `processes`.
"""

from __future__ import annotations

import os
import pwd
import stat
from collections.abc import Mapping
from pathlib import Path

from tests.support.maildir import Maildir
from tests.support.processes import Daemon, accepts, tail, wait_for
from tests.support.tools import require_tool

CONFIGURATION = """\
base_dir = {folder}/run
log_path = {folder}/dovecot.log
protocols = lmtp
listen = {address}
ssl = no
default_internal_user = dovecot
default_login_user = dovenull
default_internal_group = dovecot
first_valid_uid = 1
first_valid_gid = 1
mail_location = maildir:~/Maildir
auth_username_format = %Ln
lmtp_save_to_detail_mailbox = no
recipient_delimiter = +
hostname = store.local.test
mail_plugins = quota
plugin {{
  quota = maildir:User quota
  quota_rule = *:storage=100M
}}
passdb {{
  driver = static
  args = nopassword=y
}}
userdb {{
  driver = passwd-file
  args = username_format=%Ln {folder}/users
}}
service lmtp {{
  unix_listener {folder}/lmtp {{
    mode = 0666
  }}
  inet_listener lmtp {{
    address = {address}
    port = {port}
  }}
}}
service stats {{
  unix_listener stats-writer {{
    mode = 0666
  }}
}}
"""


class Dovecot:
    """One instance. Start it with `start`, end it with `stop`."""

    def __init__(self, folder: Path, address: str, port: int, users: Mapping[str, str]) -> None:
        """Write its configuration.

        Args:
            users: local part → a quota rule such as `*:bytes=1000`, or "".
        """
        self._dovecot = require_tool("dovecot", "it stores the mail of local domains")
        require_tool("lmtp", "it is Dovecot's LMTP server")
        self._folder, self.address, self.port = folder, address, port
        owner = pwd.getpwnam("dovecot")
        self._daemon: Daemon | None = None
        (folder / "run").mkdir()
        (folder / "mail").mkdir()
        os.chown(folder / "mail", owner.pw_uid, owner.pw_gid)
        (folder / "users").write_text(
            "".join(
                f"{name}::{owner.pw_uid}:{owner.pw_gid}::{folder}/mail/{name}::"
                + (f"userdb_quota_rule={quota}\n" if quota else "\n")
                for name, quota in users.items()
            ),
            encoding="utf-8",
        )
        (folder / "dovecot.conf").write_text(
            CONFIGURATION.format(folder=folder, address=address, port=port), encoding="utf-8"
        )

    @property
    def socket(self) -> Path:
        """Where it takes LMTP on a Unix socket."""
        return self._folder / "lmtp"

    @property
    def log(self) -> Path:
        """Dovecot's own log."""
        return self._folder / "dovecot.log"

    def start(self) -> None:
        """Start and return when it accepts connections on both sockets."""
        self._daemon = Daemon([self._dovecot, "-F", "-c", self._folder / "dovecot.conf"], self._folder / "output.log")
        self._daemon.wait_until(f"port {self.port}", lambda: accepts(self.address, self.port) and self._has_socket())

    def stop(self) -> None:
        """End all its processes; mailboxes stay."""
        if self._daemon is not None:
            self._daemon.stop()
            self._daemon = None

    def mail_for(self, user: str) -> list[bytes]:
        """The messages in a user's inbox, oldest first, with CRLF line ends."""
        return Maildir(self._folder / "mail" / user / "Maildir").messages()

    def wait_for_mail(self, user: str, count: int = 1, seconds: float = 20.0) -> list[bytes]:
        """Wait until so many messages are in the user's inbox and return them."""

        def arrived() -> list[bytes] | None:
            found = self.mail_for(user)
            return found if len(found) >= count else None

        try:
            return wait_for(f"{count} messages for {user} in Dovecot", arrived, seconds)
        except BaseException:
            print(tail(self.log))
            raise

    def _has_socket(self) -> bool:
        return self.socket.exists() and stat.S_ISSOCK(self.socket.stat().st_mode)
