"""Where nodes reach the driver, from what the site file says of it."""

from __future__ import annotations

import ipaddress
import os
import socket

import psutil

from alloop.errors import SiteError

LOOPBACK = "127.0.0.1"


def address_of(said: str) -> str:
    """Return the IP address that a site's ``address`` stands for on this machine.

    Never asks the internet, as Parsl does when it is given no address. Raises SiteError where
    there is none, or where it is one that no other machine can reach.
    """
    if _is_address(said):
        return said  # what a person has written is what they want, the loopback interface too
    if said.startswith("$"):
        value = os.environ.get(said[1:], "")
        if not _is_address(value):
            raise SiteError(f"address: {said} is {value!r} here, want an IP address")
        return value
    found = _of_this_host() if said == "hostname" else _of_interface(said)
    if ipaddress.ip_address(found).is_loopback:
        raise SiteError(
            f"address: {said} is {found} here, which no other machine can reach: name a network"
            f" interface ({_interfaces()}) or an IP address"
        )
    return found


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _of_this_host() -> str:
    try:
        return socket.gethostbyname(socket.gethostname())
    except OSError as error:
        raise SiteError(
            f"address: the name of this machine, {socket.gethostname()}, has no address ({error}):"
            f" name a network interface ({_interfaces()}) or an IP address"
        ) from error


def _of_interface(name: str) -> str:
    for address in psutil.net_if_addrs().get(name, ()):
        if address.family == socket.AF_INET:
            return address.address
    raise SiteError(
        f"address: this machine has no network interface {name!r} with an address;"
        f" it has {_interfaces()}"
    )


def _interfaces() -> str:
    """Return the network interfaces of this machine, with their addresses."""
    return ", ".join(
        f"{name} {address.address}"
        for name, addresses in psutil.net_if_addrs().items()
        for address in addresses
        if address.family == socket.AF_INET
    )
