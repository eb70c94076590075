from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Recipient(_message.Message):
    __slots__ = ("address", "notify", "orcpt")
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    NOTIFY_FIELD_NUMBER: _ClassVar[int]
    ORCPT_FIELD_NUMBER: _ClassVar[int]
    address: str
    notify: int
    orcpt: str
    def __init__(self, address: _Optional[str] = ..., notify: _Optional[int] = ..., orcpt: _Optional[str] = ...) -> None: ...

class Envelope(_message.Message):
    __slots__ = ("message_id", "reverse_path", "recipients", "submitter", "stream", "lane", "received_at", "expires_at", "size_bytes", "eight_bit", "smtputf8", "ret", "envid", "tag", "metadata", "header_message_id")
    class MetadataEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    MESSAGE_ID_FIELD_NUMBER: _ClassVar[int]
    REVERSE_PATH_FIELD_NUMBER: _ClassVar[int]
    RECIPIENTS_FIELD_NUMBER: _ClassVar[int]
    SUBMITTER_FIELD_NUMBER: _ClassVar[int]
    STREAM_FIELD_NUMBER: _ClassVar[int]
    LANE_FIELD_NUMBER: _ClassVar[int]
    RECEIVED_AT_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_AT_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    EIGHT_BIT_FIELD_NUMBER: _ClassVar[int]
    SMTPUTF8_FIELD_NUMBER: _ClassVar[int]
    RET_FIELD_NUMBER: _ClassVar[int]
    ENVID_FIELD_NUMBER: _ClassVar[int]
    TAG_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    HEADER_MESSAGE_ID_FIELD_NUMBER: _ClassVar[int]
    message_id: str
    reverse_path: str
    recipients: _containers.RepeatedCompositeFieldContainer[Recipient]
    submitter: str
    stream: str
    lane: int
    received_at: float
    expires_at: float
    size_bytes: int
    eight_bit: bool
    smtputf8: bool
    ret: str
    envid: str
    tag: str
    metadata: _containers.ScalarMap[str, str]
    header_message_id: str
    def __init__(self, message_id: _Optional[str] = ..., reverse_path: _Optional[str] = ..., recipients: _Optional[_Iterable[_Union[Recipient, _Mapping]]] = ..., submitter: _Optional[str] = ..., stream: _Optional[str] = ..., lane: _Optional[int] = ..., received_at: _Optional[float] = ..., expires_at: _Optional[float] = ..., size_bytes: _Optional[int] = ..., eight_bit: _Optional[bool] = ..., smtputf8: _Optional[bool] = ..., ret: _Optional[str] = ..., envid: _Optional[str] = ..., tag: _Optional[str] = ..., metadata: _Optional[_Mapping[str, str]] = ..., header_message_id: _Optional[str] = ...) -> None: ...

class BlobRef(_message.Message):
    __slots__ = ("name", "size_bytes", "sha256")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    name: str
    size_bytes: int
    sha256: bytes
    def __init__(self, name: _Optional[str] = ..., size_bytes: _Optional[int] = ..., sha256: _Optional[bytes] = ...) -> None: ...

class Message(_message.Message):
    __slots__ = ("envelope", "header_block", "blob")
    ENVELOPE_FIELD_NUMBER: _ClassVar[int]
    HEADER_BLOCK_FIELD_NUMBER: _ClassVar[int]
    BLOB_FIELD_NUMBER: _ClassVar[int]
    envelope: Envelope
    header_block: bytes
    blob: BlobRef
    def __init__(self, envelope: _Optional[_Union[Envelope, _Mapping]] = ..., header_block: _Optional[bytes] = ..., blob: _Optional[_Union[BlobRef, _Mapping]] = ...) -> None: ...

class Route(_message.Message):
    __slots__ = ("kind", "next_hop", "port", "site", "group", "pool", "source_address")
    KIND_FIELD_NUMBER: _ClassVar[int]
    NEXT_HOP_FIELD_NUMBER: _ClassVar[int]
    PORT_FIELD_NUMBER: _ClassVar[int]
    SITE_FIELD_NUMBER: _ClassVar[int]
    GROUP_FIELD_NUMBER: _ClassVar[int]
    POOL_FIELD_NUMBER: _ClassVar[int]
    SOURCE_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    kind: int
    next_hop: str
    port: int
    site: str
    group: str
    pool: str
    source_address: str
    def __init__(self, kind: _Optional[int] = ..., next_hop: _Optional[str] = ..., port: _Optional[int] = ..., site: _Optional[str] = ..., group: _Optional[str] = ..., pool: _Optional[str] = ..., source_address: _Optional[str] = ...) -> None: ...

class Reply(_message.Message):
    __slots__ = ("code", "enhanced", "text")
    CODE_FIELD_NUMBER: _ClassVar[int]
    ENHANCED_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    code: int
    enhanced: str
    text: str
    def __init__(self, code: _Optional[int] = ..., enhanced: _Optional[str] = ..., text: _Optional[str] = ...) -> None: ...

class Delivery(_message.Message):
    __slots__ = ("delivery_id", "envelope", "header_block", "blob", "route", "attempts", "last_reply", "last_attempt_at", "delay_notified", "parks")
    DELIVERY_ID_FIELD_NUMBER: _ClassVar[int]
    ENVELOPE_FIELD_NUMBER: _ClassVar[int]
    HEADER_BLOCK_FIELD_NUMBER: _ClassVar[int]
    BLOB_FIELD_NUMBER: _ClassVar[int]
    ROUTE_FIELD_NUMBER: _ClassVar[int]
    ATTEMPTS_FIELD_NUMBER: _ClassVar[int]
    LAST_REPLY_FIELD_NUMBER: _ClassVar[int]
    LAST_ATTEMPT_AT_FIELD_NUMBER: _ClassVar[int]
    DELAY_NOTIFIED_FIELD_NUMBER: _ClassVar[int]
    PARKS_FIELD_NUMBER: _ClassVar[int]
    delivery_id: str
    envelope: Envelope
    header_block: bytes
    blob: BlobRef
    route: Route
    attempts: int
    last_reply: Reply
    last_attempt_at: float
    delay_notified: bool
    parks: int
    def __init__(self, delivery_id: _Optional[str] = ..., envelope: _Optional[_Union[Envelope, _Mapping]] = ..., header_block: _Optional[bytes] = ..., blob: _Optional[_Union[BlobRef, _Mapping]] = ..., route: _Optional[_Union[Route, _Mapping]] = ..., attempts: _Optional[int] = ..., last_reply: _Optional[_Union[Reply, _Mapping]] = ..., last_attempt_at: _Optional[float] = ..., delay_notified: _Optional[bool] = ..., parks: _Optional[int] = ...) -> None: ...

class Deferred(_message.Message):
    __slots__ = ("delivery", "deferred_at", "due_at", "reason")
    DELIVERY_FIELD_NUMBER: _ClassVar[int]
    DEFERRED_AT_FIELD_NUMBER: _ClassVar[int]
    DUE_AT_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    delivery: Delivery
    deferred_at: float
    due_at: float
    reason: str
    def __init__(self, delivery: _Optional[_Union[Delivery, _Mapping]] = ..., deferred_at: _Optional[float] = ..., due_at: _Optional[float] = ..., reason: _Optional[str] = ...) -> None: ...

class Event(_message.Message):
    __slots__ = ("type", "at", "message_id", "recipients", "delivery_id", "submitter", "stream", "tag", "attempt", "reply", "scope", "site", "group", "pool", "source_address", "mx_host", "mx_address", "tls", "duration_seconds", "queued_seconds", "due_at", "detail", "header_message_id", "reverse_path", "size_bytes", "bounce_class")
    TYPE_FIELD_NUMBER: _ClassVar[int]
    AT_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_ID_FIELD_NUMBER: _ClassVar[int]
    RECIPIENTS_FIELD_NUMBER: _ClassVar[int]
    DELIVERY_ID_FIELD_NUMBER: _ClassVar[int]
    SUBMITTER_FIELD_NUMBER: _ClassVar[int]
    STREAM_FIELD_NUMBER: _ClassVar[int]
    TAG_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    REPLY_FIELD_NUMBER: _ClassVar[int]
    SCOPE_FIELD_NUMBER: _ClassVar[int]
    SITE_FIELD_NUMBER: _ClassVar[int]
    GROUP_FIELD_NUMBER: _ClassVar[int]
    POOL_FIELD_NUMBER: _ClassVar[int]
    SOURCE_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    MX_HOST_FIELD_NUMBER: _ClassVar[int]
    MX_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    TLS_FIELD_NUMBER: _ClassVar[int]
    DURATION_SECONDS_FIELD_NUMBER: _ClassVar[int]
    QUEUED_SECONDS_FIELD_NUMBER: _ClassVar[int]
    DUE_AT_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    HEADER_MESSAGE_ID_FIELD_NUMBER: _ClassVar[int]
    REVERSE_PATH_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    BOUNCE_CLASS_FIELD_NUMBER: _ClassVar[int]
    type: int
    at: float
    message_id: str
    recipients: _containers.RepeatedScalarFieldContainer[str]
    delivery_id: str
    submitter: str
    stream: str
    tag: str
    attempt: int
    reply: Reply
    scope: str
    site: str
    group: str
    pool: str
    source_address: str
    mx_host: str
    mx_address: str
    tls: str
    duration_seconds: float
    queued_seconds: float
    due_at: float
    detail: str
    header_message_id: str
    reverse_path: str
    size_bytes: int
    bounce_class: str
    def __init__(self, type: _Optional[int] = ..., at: _Optional[float] = ..., message_id: _Optional[str] = ..., recipients: _Optional[_Iterable[str]] = ..., delivery_id: _Optional[str] = ..., submitter: _Optional[str] = ..., stream: _Optional[str] = ..., tag: _Optional[str] = ..., attempt: _Optional[int] = ..., reply: _Optional[_Union[Reply, _Mapping]] = ..., scope: _Optional[str] = ..., site: _Optional[str] = ..., group: _Optional[str] = ..., pool: _Optional[str] = ..., source_address: _Optional[str] = ..., mx_host: _Optional[str] = ..., mx_address: _Optional[str] = ..., tls: _Optional[str] = ..., duration_seconds: _Optional[float] = ..., queued_seconds: _Optional[float] = ..., due_at: _Optional[float] = ..., detail: _Optional[str] = ..., header_message_id: _Optional[str] = ..., reverse_path: _Optional[str] = ..., size_bytes: _Optional[int] = ..., bounce_class: _Optional[str] = ...) -> None: ...

class Finished(_message.Message):
    __slots__ = ("topic", "partition", "offsets", "names")
    TOPIC_FIELD_NUMBER: _ClassVar[int]
    PARTITION_FIELD_NUMBER: _ClassVar[int]
    OFFSETS_FIELD_NUMBER: _ClassVar[int]
    NAMES_FIELD_NUMBER: _ClassVar[int]
    topic: str
    partition: int
    offsets: _containers.RepeatedScalarFieldContainer[int]
    names: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, topic: _Optional[str] = ..., partition: _Optional[int] = ..., offsets: _Optional[_Iterable[int]] = ..., names: _Optional[_Iterable[str]] = ...) -> None: ...

class Feedback(_message.Message):
    __slots__ = ("message_id", "reverse_path", "recipient", "received_at", "header_block", "blob", "client_address")
    MESSAGE_ID_FIELD_NUMBER: _ClassVar[int]
    REVERSE_PATH_FIELD_NUMBER: _ClassVar[int]
    RECIPIENT_FIELD_NUMBER: _ClassVar[int]
    RECEIVED_AT_FIELD_NUMBER: _ClassVar[int]
    HEADER_BLOCK_FIELD_NUMBER: _ClassVar[int]
    BLOB_FIELD_NUMBER: _ClassVar[int]
    CLIENT_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    message_id: str
    reverse_path: str
    recipient: str
    received_at: float
    header_block: bytes
    blob: BlobRef
    client_address: str
    def __init__(self, message_id: _Optional[str] = ..., reverse_path: _Optional[str] = ..., recipient: _Optional[str] = ..., received_at: _Optional[float] = ..., header_block: _Optional[bytes] = ..., blob: _Optional[_Union[BlobRef, _Mapping]] = ..., client_address: _Optional[str] = ...) -> None: ...

class DeadLetter(_message.Message):
    __slots__ = ("topic", "partition", "offset", "key", "value", "stage", "reason", "failed_at", "tries")
    TOPIC_FIELD_NUMBER: _ClassVar[int]
    PARTITION_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    STAGE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    FAILED_AT_FIELD_NUMBER: _ClassVar[int]
    TRIES_FIELD_NUMBER: _ClassVar[int]
    topic: str
    partition: int
    offset: int
    key: bytes
    value: bytes
    stage: str
    reason: str
    failed_at: float
    tries: int
    def __init__(self, topic: _Optional[str] = ..., partition: _Optional[int] = ..., offset: _Optional[int] = ..., key: _Optional[bytes] = ..., value: _Optional[bytes] = ..., stage: _Optional[str] = ..., reason: _Optional[str] = ..., failed_at: _Optional[float] = ..., tries: _Optional[int] = ...) -> None: ...
