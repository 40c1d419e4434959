"""Find where other machines reach this one, for trainings that several share."""

import fcntl
import socket
import struct
from contextlib import suppress

from sqlalchemy import make_url

from app.core.settings import Settings

_SIOCGIFADDR = 0x8915  # netdevice(7): the IPv4 address of an interface


def own_address(settings: Settings) -> str:
    """Return GRAFT_WORKER_ADDRESS, or the address that this machine has where it talks to the database.

    127.0.0.1 where the database is this machine's own, and so are all workers.
    """
    if settings.worker_address:
        return settings.worker_address
    url = make_url(settings.sqlalchemy_url)
    host = url.host or url.query.get("host")
    if not isinstance(host, str) or host.startswith("/"):
        return "127.0.0.1"
    try:
        family, kind, protocol, _, database = socket.getaddrinfo(host, url.port or 5432, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.connect(database)  # sends nothing
            found: str = probe.getsockname()[0]
            return found
    except OSError:  # it has just lost its name
        return socket.gethostname()


def interface_of(address: str) -> str | None:
    """Return the network interface that has this IPv4 address; None where none has, as behind address translation."""
    try:
        wanted = socket.inet_aton(socket.gethostbyname(address))
    except OSError:
        return None
    for _, name in socket.if_nameindex():
        request = struct.pack("256s", name.encode()[:15])
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe, suppress(OSError):
            if fcntl.ioctl(probe.fileno(), _SIOCGIFADDR, request)[20:24] == wanted:
                return name
    return None
