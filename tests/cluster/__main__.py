"""`python -m tests.cluster`: gives the tests a cluster and what they need there, and runs them.

With KUBECONFIG it is that cluster, as the variables of `tests.support.cluster_place` describe it. Otherwise the tool in
$POSTRAIL_CLUSTER_TOOL, or in ../shared/cluster, starts one, builds the images and runs pytest in its network. With neither all
tests skip and say why.

`python -m tests.cluster --start` only starts the cluster, its exit status says whether there is one;
`--stop` ends what `--start` started.
"""

from __future__ import annotations

import os
import subprocess
import sys

from tests.support import cluster_tool

TOOL_COMMANDS = {"--start": "up", "--stop": "down"}
PYTEST = (sys.executable, "-m", "pytest", "-p", "no:cacheprovider")


def main() -> int:
    """Prepare, and become pytest."""
    arguments = sys.argv[1:]
    if len(arguments) == 1 and arguments[0] in TOOL_COMMANDS:
        return 0 if os.environ.get("KUBECONFIG") or cluster_tool.run(TOOL_COMMANDS[arguments[0]]) else 1
    if not any(not argument.startswith("-") for argument in arguments):
        arguments.append("tests/cluster")
    tool = cluster_tool.find()
    if os.environ.get("KUBECONFIG") or tool is None:
        return subprocess.run([*PYTEST, *arguments], check=False).returncode
    everything = "tests/cluster" in {argument.rstrip("/") for argument in arguments}
    scaling = any("test_scaling" in argument for argument in arguments)
    environment = {**os.environ, **cluster_tool.prepare(tool, keda=everything or scaling)}
    return subprocess.run([tool / "run", *PYTEST, *arguments], env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
