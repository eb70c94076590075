"""Checks of domains and addresses against the world: the DNS, and this machine. Judgements are the core's."""
