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
    """The services run with what the object says."""
    INVALID_SPEC = "InvalidSpec"
    """A field has a wrong value; the message names it."""
    ADDRESS_TAKEN = "AddressTaken"
    """Another pool has the address."""
    POOL_TAKEN = "PoolTaken"
    """Another SenderPool uses the IPPool."""
    STREAM_TAKEN = "StreamTaken"
    """Another SenderPool has the stream."""
    NAME_TAKEN = "NameTaken"
    """Another object describes the same domain, user or site."""
    IP_POOL_MISSING = "IPPoolMissing"
    """There is no IPPool of the name in `ipPoolRef`."""
    NO_ADDRESS = "NoAddress"
    """No address of the IPPool can be used now; mail waits."""
    NO_GATEWAY = "NoGateway"
    """The cluster has no egress gateway that the operator may use."""
    SECRET_MISSING = "SecretMissing"  # noqa: S105  # a reason's name
    """There is no such Secret, or it has no such key."""
    SECRET_INVALID = "SecretInvalid"  # noqa: S105
    """What the Secret holds is no key, or no hash."""
    STREAM_MISSING = "StreamMissing"
    """No SenderPool sends the stream."""
    COVERS_NOTHING = "CoversNothing"
    """The Destination names neither mail hosts nor domains, and no provider of its name is built in."""
    CONFIGURATION_INVALID = "ConfigurationInvalid"
    """All objects together make no valid configuration; the services keep the last one."""
    EVERYTHING_ACTS = "EverythingActs"
    """Every field that is set has its effect."""
    NOT_YET_ACTING = "NotYetActing"
    """A field is kept for a later release and does nothing now."""
    IN_USE = "InUse"
    """Objects refer to it."""
    MAIL_QUEUED = "MailQueued"
    """Mail waits that would leave from here."""
    UNKNOWN_QUEUE = "UnknownQueue"
    """Nobody could tell how much mail waits."""
    UNUSED = "Unused"
    """Nothing refers to it."""
    READY = "Ready"
    """It works as described."""
    PENDING = "Pending"
    """It is on the way; the message says what is missing."""
    SUSPENDED = "Suspended"
    """Sending is stopped on purpose, and mail waits."""
    AS_ASKED = "AsAsked"
    """As many senders run as the spec says."""
    CAPPED = "Capped"
    """More senders than partitions or addresses can use are asked for."""
    LIMITS_REACHED = "LimitsReached"
    """The receivers' limits are used up; more senders would send nothing more."""
    NO_METRICS = "NoMetrics"
    """Nobody tells how much mail waits, so the number of senders stays as it is."""
    NO_SENDER_POOL = "NoSenderPool"
    """No SenderPool takes its mail."""
    NOT_CHECKED = "NotChecked"
    """Nobody has looked yet, or the checks are switched off."""

    # What a check found: the reasons of `postrail.core.checks`, word for word.
    VERIFIED = "Verified"
    """It was looked at, and is as it must be."""
    DNS_FAILED = "DNSFailed"
    """The name server did not answer, or failed; it is looked at again."""
    RECORD_MISSING = "RecordMissing"
    """The DNS has no such record."""
    RECORD_INVALID = "RecordInvalid"
    """The record breaks the rules of its kind."""
    SEVERAL_RECORDS = "SeveralRecords"
    """There are several records where one may be."""
    KEY_REVOKED = "KeyRevoked"
    """The published DKIM key is empty, which revokes it."""
    OTHER_KEY = "OtherKey"
    """The published DKIM key is not the one that signs."""
    NOT_AUTHORIZED = "NotAuthorized"
    """The SPF record does not allow the address."""
    NOT_ALIGNED = "NotAligned"
    """Neither DKIM nor SPF is for the domain that DMARC looks at."""
    OTHER_NAME = "OtherName"
    """The PTR record names another host than `ehlo`."""
    NOT_FORWARD_CONFIRMED = "NotForwardConfirmed"
    """The name of the PTR record does not have the address."""
    LISTED = "Listed"
    """A block list has the address."""
    QUERY_REFUSED = "QueryRefused"
    """The block list does not answer this name server."""
    UNEXPECTED_ANSWER = "UnexpectedAnswer"
    """The block list answered what it does not document."""
    NO_BLOCK_LISTS = "NoBlockLists"
    """No block lists are configured."""
    NOT_ON_THIS_MACHINE = "NotOnThisMachine"
    """No interface of the machine has the address."""
    CANNOT_TELL = "CannotTell"
    """The check failed; it is made again."""

    NOT_LISTED = "NotListed"
    """No block list has the address."""
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
    """A person put it into quarantine."""
    BY_AUTOMATION = "ByAutomation"
    """The operator put it into quarantine, because of what the message says."""
    LAST_ADDRESS = "LastAddress"
    """Automation would quarantine the address, but its pool has no other."""
    NOT_QUARANTINED = "NotQuarantined"
    """New mail is given to it as its weight says."""


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
