"""The configuration of large bodies: from which size on, and where they lie.

Owns the shape of the section `blobs` and the checks that need nothing else. Opening a store is `postrail.shell.blob_stores`.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, SecretStr, model_validator

from postrail.core.section import Section
from postrail.core.units import Bytes, Seconds


class S3Config(Section):
    """S3-compatible storage.

    Without a key here the surroundings give it: AWS_* variables, the pod's web identity or container role, the machine's role.
    """

    bucket: Annotated[str, Field(min_length=3, max_length=255)]
    prefix: str = ""
    """What the names of all bodies begin with; needed only where the bucket is shared."""
    region: str = ""
    """Empty: AWS_REGION, otherwise us-east-1."""
    endpoint: str = ""
    """`https://HOST[:PORT]`; empty: Amazon's of the region."""
    virtual_hosted: bool = False
    """Name the bucket in the host name instead of the path; then `endpoint` is the bucket's."""
    access_key_id: SecretStr | None = None
    secret_access_key: SecretStr | None = None
    secret_access_key_file: str | None = None
    """Instead of `secret_access_key`: read again every 5 minutes, so that it can be changed while the system runs."""
    ca_file: str | None = None
    """PEM: authorities that are believed beside the usual ones."""
    allow_http: bool = False
    """Allow an endpoint without TLS: tests only."""
    request_timeout_seconds: Seconds = 20.0
    """Longest time for one request: 1 MiB read, 5 MiB written."""
    write_timeout_seconds: Seconds = 60.0
    """Longest time to store one body, retries included; then submission answers 451."""
    delete_old: bool = True
    """Delete bodies that are older than any mail. False where the bucket's lifecycle rule does it."""

    @model_validator(mode="after")
    def _one_key(self) -> Self:
        if self.secret_access_key is not None and self.secret_access_key_file is not None:
            raise ValueError("secret_access_key and secret_access_key_file are both set; remove one")
        has_secret = self.secret_access_key is not None or self.secret_access_key_file is not None
        if has_secret != (self.access_key_id is not None):
            raise ValueError(
                "access_key_id and its secret belong together: set access_key_id and secret_access_key (or "
                "secret_access_key_file), or none of them to use the credentials of the surroundings"
            )
        return self

    @model_validator(mode="after")
    def _endpoint_is_a_url(self) -> Self:
        if self.endpoint.startswith("http://") and not self.allow_http:
            raise ValueError(
                f"endpoint {self.endpoint} is without TLS, so mail would cross the network in clear: use https://, or set "
                "allow_http for a test"
            )
        if self.endpoint and not self.endpoint.startswith(("http://", "https://")):
            raise ValueError(f"endpoint {self.endpoint!r} is no URL; write https://HOST or https://HOST:PORT")
        return self


class BlobsConfig(Section):
    """Where bodies lie that are too large for a record."""

    inline_limit_bytes: Bytes = 256 << 10
    """A larger body goes to the store; on Kafka also one that all deliveries of a message together would exceed this with."""
    store: Literal["directory", "s3"] = "directory"
    """`directory`: `blobs` in the data directory, which all services must share. `s3`: for several machines."""
    s3: S3Config | None = None

    @model_validator(mode="after")
    def _s3_is_described(self) -> Self:
        if self.store == "s3" and self.s3 is None:
            raise ValueError("store is s3, but nothing says which: add blobs.s3 with at least bucket")
        if self.store != "s3" and self.s3 is not None:
            raise ValueError("blobs.s3 is set but not used: set blobs.store to s3, or remove blobs.s3")
        return self
