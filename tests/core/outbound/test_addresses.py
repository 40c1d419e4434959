"""Which addresses may be asked: public ones, in whichever form they come, and what the operator named."""

from ipaddress import ip_address

import pytest

from app.core.outbound.addresses import Allowed, is_public, read_allowed

CLOSED = [
    *(
        "127.0.0.1",
        "127.1.2.3",
        "0.0.0.0",
        "10.0.0.1",
        "172.16.0.1",
        "172.31.255.255",
        "192.168.1.1",
        "169.254.169.254",
    ),
    *("100.64.0.1", "100.100.100.200", "168.63.129.16", "192.0.0.192", "192.0.2.1", "198.18.0.1", "198.51.100.1"),
    *("203.0.113.1", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255", "192.88.99.1"),
    *("::", "::1", "fe80::1", "fe80::1%1", "fc00::1", "fd00:ec2::254", "ff02::1", "fec0::1", "2001:db8::1", "100::1"),
    *("::ffff:127.0.0.1", "::ffff:169.254.169.254", "::ffff:10.0.0.1", "::127.0.0.1", "::10.0.0.1"),
    *("64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::1", "2002:7f00:1::", "2002:c0a8:101::1", "2001::1"),
]
OPEN = ["1.1.1.1", "8.8.8.8", "93.184.216.34", "2606:4700:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"]


@pytest.mark.parametrize("address", CLOSED)
def test_no_address_of_an_inner_network_is_public(address: str) -> None:
    assert not is_public(ip_address(address))
    assert not Allowed().permits("example.org", ip_address(address))


@pytest.mark.parametrize("address", OPEN)
def test_addresses_of_the_open_internet_are(address: str) -> None:
    assert is_public(ip_address(address))


def test_the_operator_opens_hosts_and_networks_by_name() -> None:
    allowed = read_allowed(["Images.internal", "10.1.0.0/16", "fd00::/8", "192.168.1.7"])
    assert allowed.permits("images.INTERNAL", ip_address("10.9.9.9"))
    assert allowed.permits("x", ip_address("10.1.2.3"))
    assert allowed.permits("x", ip_address("::ffff:10.1.2.3"))
    assert allowed.permits("x", ip_address("fd00::1"))
    assert allowed.permits("x", ip_address("192.168.1.7"))
    assert not allowed.permits("x", ip_address("10.2.0.1"))
    assert not allowed.permits("other.internal", ip_address("10.9.9.9"))
    assert not allowed.permits("x", ip_address("192.168.1.8"))
    with pytest.raises(ValueError):
        read_allowed(["10.1.0.0/99"])
