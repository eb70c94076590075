"""Runs Kafka's own command-line tools, as an operator would. Its neighbour: `distribution`, which brings them."""

from __future__ import annotations

import subprocess

from tools.kafka import distribution

CONSUMER_GROUPS = "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand"
CONFIGS = "kafka.admin.ConfigCommand"
LOG_DIRS = "org.apache.kafka.tools.LogDirsCommand"
TIMEOUT_SECONDS = 60.0


class CommandFailed(Exception):
    """The tool ended with an error; the text is what it said."""


def run(tool: str, bootstrap: str, *arguments: str) -> str:
    """What the tool prints.

    Args:
        tool: its Java class.
        bootstrap: HOST:PORT of brokers, with commas.

    Raises:
        CommandFailed: it did not end with 0.
    """
    libraries = f"{distribution.fetch()}/*"
    done = subprocess.run(
        ["java", "-XX:TieredStopAtLevel=1", "-cp", libraries, tool, "--bootstrap-server", bootstrap, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=TIMEOUT_SECONDS,
        check=False,
    )
    if done.returncode or "Error:" in done.stdout:
        raise CommandFailed(done.stdout)
    return done.stdout
