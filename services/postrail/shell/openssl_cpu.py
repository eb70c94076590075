"""Which of OpenSSL's RSA routines this processor should use.

Signing with RSA-2048 is the largest single cost of a message. OpenSSL takes its MULX/ADX routine where it can, but on AMD
processors without AVX-512 IFMA its AVX2 routine is a third faster (docs/design/2026-11-22-rsa-routine.md). OpenSSL reads its
choice from the environment when it is loaded, so it must be made before the process that signs starts. Owns that choice
only; a choice that somebody made already stands.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

VARIABLE = "OPENSSL_ia32cap"
WITHOUT_ADX = ":~0x80000"
"""Masks bit 19 of CPUID leaf 7 EBX (OPENSSL_ia32cap(3))."""
CPU_INFO = Path("/proc/cpuinfo")


def setting(environment: Mapping[str, str], cpu_info: str) -> str | None:
    """The value that the variable should get; None to leave things as they are.

    Args:
        environment: of the process; a value that is set is never changed.
        cpu_info: as `/proc/cpuinfo` has it; "" where there is none.
    """
    if VARIABLE in environment:
        return None
    lines = dict(line.split(":", 1) for line in cpu_info.splitlines() if ":" in line)
    facts = {name.strip(): value.split() for name, value in lines.items()}
    flags = frozenset(facts.get("flags", ()))
    if facts.get("vendor_id") != ["AuthenticAMD"] or "avx512ifma" in flags or not {"avx2", "adx"} <= flags:
        return None
    return WITHOUT_ADX


def read_cpu_info() -> str:
    """What Linux says of the processor; "" elsewhere."""
    try:
        return CPU_INFO.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
