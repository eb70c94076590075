"""The systems under test, by the name that the command line takes."""

from bench.systems.base import Setup, System
from bench.systems.haraka import Haraka
from bench.systems.postfix import PostfixOpenDkim
from bench.systems.postrail import Postrail
from bench.systems.postrail_kafka import PostrailOnKafka

SYSTEMS: dict[str, type[System]] = {
    system.name: system for system in (PostfixOpenDkim, Haraka, Postrail, PostrailOnKafka)
}

__all__ = ["SYSTEMS", "Haraka", "PostfixOpenDkim", "Postrail", "PostrailOnKafka", "Setup", "System"]
