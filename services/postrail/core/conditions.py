"""Conditions: what is true and what is wrong with a Kubernetes object of ours, in the words that its status shows.

Owns their types and reasons, which are constants: people and alerts match on them. Who decides which one holds is the operator
(`postrail_operator.conditions`). A message says what is wrong, where, and what to do.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Truth(StrEnum):
    """A condition's status."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"
    """Nobody could look yet."""


class ConditionType(StrEnum):
    """What a condition is about. All but QUARANTINED and LISTED are good when they are True."""

    ACCEPTED = "Accepted"
    """The object is in the configuration that the services run with."""
    HONOURED = "Honoured"
    """Everything that its spec says acts in this release."""
    READY = "Ready"
    """What the object describes works."""
    SCALED = "Scaled"
    """As many senders run as are asked for."""
    RELEASED = "Released"
    """An object that is being deleted holds nothing any more."""
    VERIFIED = "Verified"
    """The DNS has every record of a domain as it must be: what the next three say, together."""
    DKIM_PUBLISHED = "DKIMPublished"
    """The DNS has the public half of every key that signs for the domain."""
    DMARC_VALID = "DMARCValid"
    """A DMARC policy applies to the domain, and its mail satisfies it."""
    PLUMBED = "Plumbed"
    """The address is bound where mail shall leave from it: at its senders, or at a proxy that answers."""
    PTR_VALID = "PTRValid"
    """The address has a name, and the name has the address (forward-confirmed)."""
    SPF_AUTHORIZED = "SPFAuthorized"
    """The SPF records of the domains that send from the address allow it; of a domain: its record allows all its addresses."""
    SOURCE_VERIFIED = "SourceVerified"
    """Connections leave from the address."""
    LISTED = "Listed"
    """A block list has the address."""
    QUARANTINED = "Quarantined"
    """No new mail is given to the address."""


BAD_WHEN_TRUE = frozenset({ConditionType.LISTED, ConditionType.QUARANTINED})


def is_bad(kind: str, status: str) -> bool:
    """Whether a condition says that something is wrong. What nobody has looked at is not wrong."""
    return status == (Truth.TRUE if kind in BAD_WHEN_TRUE else Truth.FALSE)


class Reason(StrEnum):
    """Why a condition is as it is."""

    ACCEPTED = "Accepted"
    INVALID_SPEC = "InvalidSpec"
    ADDRESS_TAKEN = "AddressTaken"
    """Another pool has the address."""
    POOL_TAKEN = "PoolTaken"
    """Another SenderPool uses the IPPool."""
    STREAM_TAKEN = "StreamTaken"
    NAME_TAKEN = "NameTaken"
    """Another object describes the same domain, user or site."""
    IP_POOL_MISSING = "IPPoolMissing"
    NO_ADDRESS = "NoAddress"
    NO_GATEWAY = "NoGateway"
    """The cluster has no egress gateway that the operator may use."""
    SECRET_MISSING = "SecretMissing"  # noqa: S105  # a reason's name
    SECRET_INVALID = "SecretInvalid"  # noqa: S105
    STREAM_MISSING = "StreamMissing"
    COVERS_NOTHING = "CoversNothing"
    CONFIGURATION_INVALID = "ConfigurationInvalid"
    """All objects together make no valid configuration; the services keep the last one."""
    EVERYTHING_ACTS = "EverythingActs"
    NOT_YET_ACTING = "NotYetActing"
    """A field is kept for a later release and does nothing now."""
    IN_USE = "InUse"
    """Objects refer to it."""
    MAIL_QUEUED = "MailQueued"
    UNKNOWN_QUEUE = "UnknownQueue"
    """Nobody could tell how much mail waits."""
    UNUSED = "Unused"
    READY = "Ready"
    PENDING = "Pending"
    SUSPENDED = "Suspended"
    AS_ASKED = "AsAsked"
    CAPPED = "Capped"
    """More senders than partitions or addresses can use are asked for."""
    LIMITS_REACHED = "LimitsReached"
    """The receivers' limits are used up; more senders would send nothing more."""
    NO_METRICS = "NoMetrics"
    NO_SENDER_POOL = "NoSenderPool"
    """No SenderPool takes its mail."""
    NOT_CHECKED = "NotChecked"
    """Nobody has looked yet, or the checks are switched off."""

    # What a check found: the reasons of `postrail.core.checks`, word for word.
    VERIFIED = "Verified"
    DNS_FAILED = "DNSFailed"
    RECORD_MISSING = "RecordMissing"
    RECORD_INVALID = "RecordInvalid"
    SEVERAL_RECORDS = "SeveralRecords"
    KEY_REVOKED = "KeyRevoked"
    OTHER_KEY = "OtherKey"
    NOT_AUTHORIZED = "NotAuthorized"
    NOT_ALIGNED = "NotAligned"
    OTHER_NAME = "OtherName"
    NOT_FORWARD_CONFIRMED = "NotForwardConfirmed"
    LISTED = "Listed"
    QUERY_REFUSED = "QueryRefused"
    UNEXPECTED_ANSWER = "UnexpectedAnswer"
    NO_BLOCK_LISTS = "NoBlockLists"
    NOT_ON_THIS_MACHINE = "NotOnThisMachine"
    CANNOT_TELL = "CannotTell"

    NOT_LISTED = "NotListed"
    NO_KEY = "NoKey"
    """Nothing signs for the domain."""
    NO_DOMAINS = "NoDomains"
    """No domain is known to send from the address."""
    NO_ADDRESSES = "NoAddresses"
    """The domain's mail has no address to leave from yet."""
    NO_REPORT = "NoReport"
    """No sender that uses the address tells of it."""
    NO_CONNECTION = "NoConnection"
    """No connection has left from the address since its senders started."""
    PROXY_FAILED = "ProxyFailed"
    """The proxy that has the address does not answer, or refuses."""
    OTHER_SOURCE = "OtherSource"
    """A connection would have left from another address, or nobody said from which; it was closed."""
    NOT_VERIFIABLE = "NotVerifiable"
    """The network translates: senders cannot see from which address mail leaves."""
    BY_ANNOTATION = "ByAnnotation"
    BY_AUTOMATION = "ByAutomation"
    LAST_ADDRESS = "LastAddress"
    """Automation would quarantine the address, but its pool has no other."""
    NOT_QUARANTINED = "NotQuarantined"


@dataclass(frozen=True, slots=True)
class Condition:
    """One statement about an object, without the times that the API server's copy has."""

    type: ConditionType
    status: Truth
    reason: Reason
    message: str

    @property
    def holds(self) -> bool:
        """Whether its status is True."""
        return self.status is Truth.TRUE
