"""Opens the blob store that the configuration names; the only place that knows all of them. Neighbours: `blobs`, `blobs_s3`."""

from __future__ import annotations

from pathlib import Path

from postrail.core.config import Config
from postrail.shell.blobs import BlobStore, DirectoryBlobStore

BLOBS_DIRECTORY = "blobs"
OUTGOING_DIRECTORY = "blobs-outgoing"


def open_blob_store(config: Config) -> BlobStore:
    """The store of large bodies. A storage that cannot be reached shows at its first use, not here.

    Raises:
        OSError: the data directory cannot be written, or `blobs.s3.ca_file` not be read.
    """
    root = Path(config.data_directory)
    if config.blobs.s3 is None:
        return DirectoryBlobStore(root / BLOBS_DIRECTORY)
    from postrail.shell.blobs_s3 import S3BlobStore  # noqa: PLC0415  # nobody else needs obstore

    return S3BlobStore(config.blobs.s3, root / OUTGOING_DIRECTORY)
