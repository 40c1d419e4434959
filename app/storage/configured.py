"""This module opens the blob store that the settings describe."""

from app.core.settings import Settings
from app.storage import BlobStore, S3Options, open_store


def configured_store(settings: Settings) -> BlobStore:
    """Return the store at `GRAFT_STORAGE_URL`, or the folder `blobs` below `GRAFT_HOME`. Touches nothing yet."""
    access, secret = settings.s3_access_key, settings.s3_secret_key
    options = S3Options(
        endpoint=settings.s3_endpoint,
        region=settings.s3_region,
        access_key=access.get_secret_value() if access else None,
        secret_key=secret.get_secret_value() if secret else None,
    )
    return open_store(settings.blobs_url, s3=options)
