"""Between core's records and the bytes on the topics.

Owns the field-by-field mapping to `protos/postrail/v1/records.proto` and nothing else; every decode error leaves here as
`UndecodableRecord`.
"""

from __future__ import annotations

from google.protobuf.message import DecodeError

from postrail.core import records as core
from postrail.core.replies import Reply, Scope
from postrail.wire import records_pb2 as pb

_OFTEN_EMPTY = (
    "delivery_id",
    "submitter",
    "stream",
    "tag",
    "attempt",
    "site",
    "group",
    "pool",
    "source_address",
    "mx_host",
    "mx_address",
    "tls",
    "duration_seconds",
    "queued_seconds",
    "due_at",
    "detail",
    "header_message_id",
    "reverse_path",
    "size_bytes",
    "bounce_class",
)
"""Fields of an event that are named alike on both sides. Most are empty in most events, and what is empty is not written."""


class UndecodableRecord(ValueError):
    """The bytes are no record of the expected type."""


def _put_envelope(envelope: core.Envelope, out: pb.Envelope) -> None:
    out.message_id = envelope.message_id
    out.reverse_path = envelope.reverse_path
    for recipient in envelope.recipients:
        out.recipients.add(address=recipient.address, notify=int(recipient.notify), orcpt=recipient.orcpt)
    out.submitter = envelope.submitter
    out.stream = envelope.stream
    out.lane = int(envelope.lane)
    out.received_at = envelope.received_at
    out.expires_at = envelope.expires_at
    out.size_bytes = envelope.size_bytes
    out.eight_bit = envelope.eight_bit
    out.smtputf8 = envelope.smtputf8
    out.ret = envelope.ret
    out.envid = envelope.envid
    out.tag = envelope.tag
    if envelope.metadata:
        out.metadata.update(envelope.metadata)
    out.header_message_id = envelope.header_message_id


def _get_envelope(read: pb.Envelope) -> core.Envelope:
    return core.Envelope(
        core.MessageId(read.message_id),
        read.reverse_path,
        tuple(
            [
                core.Recipient(recipient.address, core.Notify(recipient.notify), recipient.orcpt)
                for recipient in read.recipients
            ]
        ),
        read.submitter,
        read.stream,
        core.Lane.URGENT if read.lane == core.Lane.URGENT else core.Lane.BULK,
        read.received_at,
        read.expires_at,
        read.size_bytes,
        read.eight_bit,
        read.smtputf8,
        read.ret,
        read.envid,
        read.tag,
        tuple(sorted(read.metadata.items())) if read.metadata else core.NO_METADATA,
        read.header_message_id,
    )


def _put_blob(blob: core.BlobRef, out: pb.BlobRef) -> None:
    out.name = blob.name
    out.size_bytes = blob.size_bytes
    out.sha256 = blob.sha256


def _get_blob(read: pb.BlobRef) -> core.BlobRef:
    return core.BlobRef(read.name, read.size_bytes, read.sha256)


def _put_reply(reply: Reply, out: pb.Reply) -> None:
    out.code = reply.code
    out.enhanced = reply.enhanced
    out.text = reply.text


def _get_reply(read: pb.Reply) -> Reply:
    return Reply(read.code, read.enhanced, read.text)


def encode_message(message: core.Message) -> bytes:
    """The record of the topics accepted and signed."""
    out = pb.Message(header_block=message.header_block)
    _put_envelope(message.envelope, out.envelope)
    if message.blob is not None:
        _put_blob(message.blob, out.blob)
    return out.SerializeToString()


def decode_message(value: bytes) -> core.Message:
    """The inverse of `encode_message`; raises UndecodableRecord."""
    read = pb.Message()
    _parse(read, value)
    return core.Message(
        _get_envelope(read.envelope), read.header_block, _get_blob(read.blob) if read.HasField("blob") else None
    )


def _put_delivery(delivery: core.Delivery, out: pb.Delivery) -> None:
    out.delivery_id = delivery.delivery_id
    _put_envelope(delivery.envelope, out.envelope)
    out.header_block = delivery.header_block
    if delivery.blob is not None:
        _put_blob(delivery.blob, out.blob)
    route = delivery.route
    if route is not None:
        out.route.kind = int(route.kind)
        out.route.next_hop = route.next_hop
        out.route.port = route.port
        out.route.site = route.site
        out.route.group = route.group
        out.route.pool = route.pool
        out.route.source_address = route.source_address
    out.attempts = delivery.attempts
    if delivery.last_reply is not None:
        _put_reply(delivery.last_reply, out.last_reply)
    out.last_attempt_at = delivery.last_attempt_at
    out.delay_notified = delivery.delay_notified
    out.parks = delivery.parks


def _get_delivery(read: pb.Delivery) -> core.Delivery:
    route = None
    if read.HasField("route"):
        found = read.route
        route = core.Route(
            core.RouteKind(found.kind),
            found.next_hop,
            found.port,
            found.site,
            found.group,
            found.pool,
            found.source_address,
        )
    return core.Delivery(
        core.DeliveryId(read.delivery_id),
        _get_envelope(read.envelope),
        read.header_block,
        _get_blob(read.blob) if read.HasField("blob") else None,
        route,
        read.attempts,
        _get_reply(read.last_reply) if read.HasField("last_reply") else None,
        read.last_attempt_at,
        read.delay_notified,
        read.parks,
    )


def encode_delivery(delivery: core.Delivery) -> bytes:
    """The record of the outbound topics and of due."""
    out = pb.Delivery()
    _put_delivery(delivery, out)
    return out.SerializeToString()


def decode_delivery(value: bytes) -> core.Delivery:
    """The inverse of `encode_delivery`; raises UndecodableRecord."""
    read = pb.Delivery()
    _parse(read, value)
    return _get_delivery(read)


def encode_deferred(deferred: core.Deferred) -> bytes:
    """The record of the deferral tiers."""
    out = pb.Deferred(deferred_at=deferred.deferred_at, due_at=deferred.due_at, reason=deferred.reason)
    _put_delivery(deferred.delivery, out.delivery)
    return out.SerializeToString()


def decode_deferred(value: bytes) -> core.Deferred:
    """The inverse of `encode_deferred`; raises UndecodableRecord."""
    read = pb.Deferred()
    _parse(read, value)
    return core.Deferred(_get_delivery(read.delivery), read.deferred_at, read.due_at, read.reason)


def encode_event(event: core.Event) -> bytes:
    """The record of the topic events."""
    out = pb.Event(type=int(event.type), at=event.at, message_id=event.message_id, recipients=event.recipients)
    for name in _OFTEN_EMPTY:
        if value := getattr(event, name):
            setattr(out, name, value)
    if event.scope is not None:
        out.scope = event.scope.value
    if event.reply is not None:
        _put_reply(event.reply, out.reply)
    return out.SerializeToString()


def decode_event(value: bytes) -> core.Event:
    """The inverse of `encode_event`; raises UndecodableRecord."""
    read = pb.Event()
    _parse(read, value)
    try:
        kind = core.EventType(read.type)
        scope = Scope(read.scope) if read.scope else None
    except ValueError as error:
        raise UndecodableRecord(f"event of an unknown kind: {error}") from error
    return core.Event(
        type=kind,
        at=read.at,
        message_id=core.MessageId(read.message_id),
        recipients=tuple(read.recipients),
        delivery_id=read.delivery_id,
        submitter=read.submitter,
        stream=read.stream,
        tag=read.tag,
        attempt=read.attempt,
        reply=_get_reply(read.reply) if read.HasField("reply") else None,
        scope=scope,
        site=read.site,
        group=read.group,
        pool=read.pool,
        source_address=read.source_address,
        mx_host=read.mx_host,
        mx_address=read.mx_address,
        tls=read.tls,
        duration_seconds=read.duration_seconds,
        queued_seconds=read.queued_seconds,
        due_at=read.due_at,
        detail=read.detail,
        header_message_id=read.header_message_id,
        reverse_path=read.reverse_path,
        size_bytes=read.size_bytes,
        bounce_class=read.bounce_class,
    )


def encode_dead_letter(letter: core.DeadLetter) -> bytes:
    """The record of the topic dead-letters."""
    return pb.DeadLetter(
        topic=letter.topic,
        partition=letter.partition,
        offset=letter.offset,
        key=letter.key,
        value=letter.value,
        stage=letter.stage,
        reason=letter.reason,
        failed_at=letter.failed_at,
        tries=letter.tries,
    ).SerializeToString()


def decode_dead_letter(value: bytes) -> core.DeadLetter:
    """The inverse of `encode_dead_letter`; raises UndecodableRecord."""
    read = pb.DeadLetter()
    _parse(read, value)
    return core.DeadLetter(
        read.topic,
        read.partition,
        read.offset,
        read.key,
        read.value,
        read.stage,
        read.reason,
        read.failed_at,
        read.tries,
    )


def encode_finished(finished: core.Finished) -> bytes:
    """The record of the topics outcomes.*."""
    return pb.Finished(
        topic=finished.topic, partition=finished.partition, offsets=finished.offsets, names=finished.names
    ).SerializeToString()


def decode_finished(value: bytes) -> core.Finished:
    """The inverse of `encode_finished`; raises UndecodableRecord."""
    read = pb.Finished()
    _parse(read, value)
    return core.Finished(read.topic, read.partition, tuple(read.offsets), tuple(read.names))


def encode_feedback(feedback: core.Feedback) -> bytes:
    """The record of the topic feedback."""
    out = pb.Feedback(
        message_id=feedback.message_id,
        reverse_path=feedback.reverse_path,
        recipient=feedback.recipient,
        received_at=feedback.received_at,
        header_block=feedback.header_block,
        client_address=feedback.client_address,
    )
    if feedback.blob is not None:
        _put_blob(feedback.blob, out.blob)
    return out.SerializeToString()


def decode_feedback(value: bytes) -> core.Feedback:
    """The inverse of `encode_feedback`; raises UndecodableRecord."""
    read = pb.Feedback()
    _parse(read, value)
    return core.Feedback(
        core.MessageId(read.message_id),
        read.reverse_path,
        read.recipient,
        read.received_at,
        read.header_block,
        _get_blob(read.blob) if read.HasField("blob") else None,
        read.client_address,
    )


def _parse(
    into: pb.Message | pb.Delivery | pb.Deferred | pb.Event | pb.DeadLetter | pb.Feedback | pb.Finished,
    value: bytes,
) -> None:
    try:
        into.ParseFromString(value)
    except DecodeError as error:
        raise UndecodableRecord(f"not a {type(into).__name__} record: {error}") from error
