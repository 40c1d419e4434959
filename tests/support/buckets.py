"""An S3 server in this process, with one empty bucket."""

from collections.abc import Iterator
from contextlib import contextmanager

import boto3
from moto.server import ThreadedMotoServer

from app.storage import S3Options

BUCKET = "graft-test"


@contextmanager
def s3_server() -> Iterator[S3Options]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    options = S3Options(endpoint=f"http://{host}:{port}", access_key="test-key", secret_key="test-secret")
    client = boto3.client(
        "s3",
        endpoint_url=options.endpoint,
        region_name=options.region,
        aws_access_key_id=options.access_key,
        aws_secret_access_key=options.secret_key,
    )
    client.create_bucket(Bucket=BUCKET)
    client.close()
    yield options
    server.stop()
