"""The annotations of the Kubernetes kinds by which people tell the operator what a spec has no place for.

Owns their names. What they lead to is decided in `postrail_operator` (`leases`, `conditions`); `kubectl postrail` writes them.
A list of addresses is separated by commas; `*` stands for all.
"""

QUARANTINE = "postrail.io/quarantine"
"""IPPool: addresses that get no new mail until they are taken out of this list, or `*` for all."""
RELEASE = "postrail.io/release"
"""IPPool: addresses that left the spec and are given up although mail may still wait for them."""
ABANDON = "postrail.io/abandon-queue"
"""SenderPool, value `true`: a deletion does not wait although nobody can tell whether mail waits for its senders."""
WEIGHTS = "postrail.io/weights-before-drain"
"""IPPool: `ADDRESS=WEIGHT` of addresses whose weight `kubectl postrail drain` set to 0. The operator does not read it."""
