"""What an error of Kafka means to those who use the log. The only place where aiokafka's errors are translated."""

from __future__ import annotations

from aiokafka import errors

from postrail.log.interface import LogError, LogUnavailable

REFUSED = (
    errors.TopicAuthorizationFailedError,
    errors.GroupAuthorizationFailedError,
    errors.ClusterAuthorizationFailedError,
)


def missing_topic(topic: str) -> LogUnavailable:
    """A topic that does not exist."""
    return LogUnavailable(f"the topic {topic} does not exist; create it with: postrail topics apply")


def too_large(topic: str, size_bytes: int, our_limit_bytes: int | None) -> str:
    """What is wrong with a record that is more than our limit lets through; None: than the brokers take."""
    record = f"a record of {size_bytes} bytes is too large for the topic {topic}"
    if our_limit_bytes is None:
        return f"{record}: the brokers refuse it; raise the topic's max.message.bytes (postrail topics check shows it)"
    return f"{record} (log.kafka.max_record_bytes: {our_limit_bytes})"


def unreachable(servers: str, error: BaseException | str) -> LogUnavailable:
    """No broker answers."""
    return LogUnavailable(f"Kafka at {servers} cannot be reached: {_text(error)}")


def translate(servers: str, topic: str, error: BaseException) -> LogError:
    """The error that callers of the log see when an append to `topic` failed."""
    if isinstance(error, LogError):
        return error
    if isinstance(error, errors.UnknownTopicOrPartitionError):
        return missing_topic(topic)
    if isinstance(error, REFUSED):
        return LogUnavailable(f"Kafka at {servers} does not allow this user to write to {topic}: grant it the right")
    return LogUnavailable(f"Kafka at {servers} did not store a record of {topic}: {_text(error)}")


def _text(error: BaseException | str) -> str:
    return error if isinstance(error, str) else f"{type(error).__name__}: {error}".rstrip(": ")
