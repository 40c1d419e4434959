"""This module says how a bucket is reached: where it is, with which keys, and how long to wait for it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING

from obstore.store import S3Store

if TYPE_CHECKING:  # names that obstore has for type checkers only
    from obstore.store import S3Config, S3Credential


@dataclass(frozen=True, slots=True)
class S3Options:
    """These options say how to reach a bucket. No `endpoint` means AWS; no keys means the machine's own role.

    An `http://` endpoint is for a store on the same private network: bytes and requests travel in the clear.
    """

    endpoint: str | None = None
    region: str = "us-east-1"
    access_key: str | None = None
    secret_key: str | None = field(default=None, repr=False)


def connect(bucket: str, prefix: str, options: S3Options) -> S3Store:
    config: S3Config = {"region": options.region}
    if options.endpoint:
        # The more specific of obstore's two names, because a stray AWS_ENDPOINT_URL_S3 would win over the other.
        config["aws_endpoint_url_s3"] = options.endpoint
    return S3Store(
        bucket,
        prefix=prefix or None,
        config=config,
        # A provider rather than `config`, which a stray AWS_SESSION_TOKEN would be mixed into.
        credential_provider=_given_credentials(options),
        client_options={
            "allow_http": (options.endpoint or "").startswith("http://"),
            "connect_timeout": timedelta(seconds=5),
            "read_timeout": timedelta(seconds=30),
            # For one whole request: obstore's 30 s would end the download of any large blob.
            "timeout": timedelta(hours=1),
        },
        retry_config={"max_retries": 3, "retry_timeout": timedelta(seconds=20)},
    )


def _given_credentials(options: S3Options) -> "Callable[[], S3Credential] | None":
    access_key, secret_key = options.access_key, options.secret_key
    if access_key is None or secret_key is None:
        return None
    return lambda: {
        "access_key_id": access_key,
        "secret_access_key": secret_key,
        "token": None,
        "expires_at": None,
    }
