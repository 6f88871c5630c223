"""The addresses on which a process and all that it started listen."""

from __future__ import annotations

import ipaddress
from pathlib import Path

_LISTENS = "0A"  # the state of a socket in /proc/net/tcp

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def listening_addresses(pid: int) -> list[Address]:
    """Return them for TCP. An IPv4 address that is mapped into IPv6 is the IPv4 address."""
    inodes = {inode for one in family_of(pid) for inode in _sockets_of(one)}
    found: list[Address] = []
    for name in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == _LISTENS and fields[9] in inodes:
                found.append(_address(fields[1].partition(":")[0]))
    return found


def family_of(pid: int) -> list[int]:
    """Return a process and all below it."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue  # it has ended
    family = [pid]
    for one in family:
        family.extend(child for child, parent in parents.items() if parent == one)
    return family


def _sockets_of(pid: int) -> set[str]:
    try:
        links = [str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir()]
    except OSError:
        return set()
    return {link[8:-1] for link in links if link.startswith("socket:[")}


def _address(text: str) -> Address:
    # Words of four bytes, each as the machine has it.
    words = bytes.fromhex(text)
    packed = b"".join(words[at : at + 4][::-1] for at in range(0, len(words), 4))
    address = ipaddress.ip_address(packed)
    mapped = getattr(address, "ipv4_mapped", None)
    return address if mapped is None else mapped
