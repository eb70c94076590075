"""Postfix with OpenDKIM as a milter on a Unix socket, in an instance of its own.

Queue files are fsynced (Postfix knows no other way). Tuned as a fair peer deserves: no client limits, no in-flow delay,
connections to the sink kept and reused, no DNS, 100 processes a service, log written by its own postlogd.
"""

import re
import shutil
import subprocess
from pathlib import Path
from typing import ClassVar

from bench import process_tree
from bench.dkim_key import SELECTOR, SENDER_DOMAIN
from bench.load import tool
from bench.systems.base import System

_MAIN = """\
compatibility_level = 3.6
queue_directory = {directory}/queue
data_directory = {directory}/data
mail_owner = postfix
setgid_group = postdrop
maillog_file = {directory}/mail.log
maillog_file_prefixes = {directory}
myhostname = postfix.test
mydestination =
alias_maps =
local_recipient_maps =
mynetworks = 127.0.0.0/8
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
relayhost = [127.0.0.1]:{sink_port}
smtp_dns_support_level = disabled
smtpd_peername_lookup = no
smtp_tls_security_level = none
smtpd_recipient_restrictions = permit_mynetworks, reject
smtpd_client_connection_count_limit = 0
smtpd_client_connection_rate_limit = 0
smtpd_client_message_rate_limit = 0
smtpd_milters = unix:{directory}/opendkim.sock
milter_default_action = tempfail
in_flow_delay = 0
default_process_limit = 100
initial_destination_concurrency = 20
default_destination_concurrency_limit = 50
smtp_connection_cache_destinations = [127.0.0.1]:{sink_port}
message_size_limit = 52428800
"""

_MASTER = """\
127.0.0.1:{port} inet n - n - - smtpd
postlog   unix-dgram n - n - 1 postlogd
cleanup   unix n - n - 0 cleanup
qmgr      unix n - n 300 1 qmgr
rewrite   unix - - n - - trivial-rewrite
bounce    unix - - n - 0 bounce
defer     unix - - n - 0 bounce
trace     unix - - n - 0 bounce
flush     unix n - n 1000? 0 flush
proxymap  unix - - n - - proxymap
smtp      unix - - n - - smtp
relay     unix - - n - - smtp
error     unix - - n - - error
retry     unix - - n - - error
scache    unix - - n - 1 scache
anvil     unix - - n - 1 anvil
"""

_OPENDKIM = """\
Socket local:{directory}/opendkim.sock
UMask 000
Mode s
Domain {domain}
Selector {selector}
KeyFile {key_file}
RequireSafeKeys no
Canonicalization relaxed/relaxed
SignatureAlgorithm rsa-sha256
InternalHosts 127.0.0.1
OversignHeaders From
Syslog no
"""


class PostfixOpenDkim(System):
    """Postfix + OpenDKIM: the measure that the others' ratios refer to."""

    name: ClassVar[str] = "postfix"
    label: ClassVar[str] = "Postfix+OpenDKIM"

    @staticmethod
    def version() -> str:
        """Return both programs' versions."""
        postfix = subprocess.run(
            [tool("postconf"), "-dh", "mail_version"], check=True, capture_output=True, text=True
        ).stdout.strip()
        opendkim = subprocess.run([tool("opendkim"), "-V"], check=True, capture_output=True, text=True).stdout
        found = re.search(r"v([\d.]+)", opendkim)
        return f"Postfix {postfix}, OpenDKIM {found.group(1) if found else '?'}"

    def launch(self) -> None:
        """Write both configurations and start the milter, then Postfix in the foreground."""
        directory = self.setup.directory
        configuration = directory / "etc"
        configuration.mkdir(exist_ok=True)
        self._make_owned(directory / "queue", "root")
        self._make_owned(directory / "data", "postfix")
        values = {"directory": directory, "sink_port": self.setup.sink_port, "port": self.port}
        (configuration / "main.cf").write_text(_MAIN.format(**values))
        (configuration / "master.cf").write_text(_MASTER.format(**values))
        opendkim = directory / "opendkim.conf"
        opendkim.write_text(
            _OPENDKIM.format(
                directory=directory, domain=SENDER_DOMAIN, selector=SELECTOR, key_file=self.setup.key.private_key_file
            )
        )
        self.spawn("opendkim", [tool("opendkim"), "-f", "-x", str(opendkim)])
        self.spawn("postfix", [tool("postfix"), "-c", str(configuration), "start-fg"])

    def ask_to_end(self, process: subprocess.Popen[bytes]) -> None:
        """Stop Postfix with its own command: a signal would end the script above the master only."""
        if "start-fg" in process_tree.command_line(process.pid):
            command = [tool("postfix"), "-c", str(self.setup.directory / "etc"), "stop"]
            subprocess.run(command, check=False, capture_output=True)
        else:
            super().ask_to_end(process)

    @staticmethod
    def _make_owned(directory: Path, owner: str) -> None:
        directory.mkdir(exist_ok=True)
        shutil.chown(directory, owner)
