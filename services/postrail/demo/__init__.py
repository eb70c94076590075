"""The demonstration: the real system against simulated receivers, with a ledger that counts losses and duplicates.

Everything runs on loopback addresses. `postrail.cli.demo` runs it; the chaos suite builds on the same receivers, DNS server
and ledger. No service imports it.
"""
