"""An internet of network namespaces: a core, hosts on it, and sites behind routers with NAT made by nftables.

    host ── core ── host          public: each on a network of its own, so that each is a group
              └── router ── inside private: 192.168.N.2 behind a NAT of a kind

All traffic stays inside the namespaces, which have no way out. Wants root, iproute2 and nftables.
"""

import itertools
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

KINDS = ("full-cone", "port-restricted", "symmetric")
_numbers = itertools.count()


def missing(*, nat: bool = True) -> str:
    """Return why there can be no namespaces here, with NAT or without it, or nothing."""
    if os.geteuid() != 0:
        return "needs root, to make network namespaces"
    for tool, package in (("ip", "iproute2"), *([("nft", "nftables")] if nat else [])):
        if shutil.which(tool) is None:
            return f"needs {tool} (apt-get install {package})"
    name = f"depin-try-{os.getpid()}"
    tried = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True, check=False)
    if tried.returncode:
        return f"no network namespaces here: {tried.stderr.strip()}"
    if not nat:
        subprocess.run(["ip", "netns", "del", name], check=False)
        return ""
    rules = "add table ip t; add chain ip t c { type nat hook postrouting priority 100; }; add rule ip t c masquerade"
    nat = subprocess.run(["ip", "netns", "exec", name, "nft", rules], capture_output=True, text=True, check=False)
    subprocess.run(["ip", "netns", "del", name], check=False)
    return f"no NAT by nftables here: {nat.stderr.strip()[:200]}" if nat.returncode else ""


def run(*command: str, stdin: str | None = None) -> None:
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")


@dataclass
class Internet:
    """See the module; ``internet`` makes it."""

    prefix: str
    spaces: list[str] = field(default_factory=list)

    def space(self, name: str) -> str:
        """Make a namespace; return its full name."""
        full = f"{self.prefix}-{name}"
        run("ip", "netns", "add", full)
        self.spaces.append(full)
        self.inside(full, "ip", "link", "set", "lo", "up")
        return full

    def inside(self, space: str, *command: str, stdin: str | None = None) -> None:
        run("ip", "netns", "exec", space, *command, stdin=stdin)

    def link(self, near: str, near_address: str, far: str, far_address: str) -> tuple[str, str]:
        """Join two namespaces by a cable; addresses with their prefix length. Returns the two interfaces' names."""
        number = next(_numbers)
        a, b = f"v{number}a", f"v{number}b"
        run("ip", "link", "add", a, "netns", near, "type", "veth", "peer", "name", b, "netns", far)
        for space, interface, address in ((near, a, near_address), (far, b, far_address)):
            self.inside(space, "ip", "address", "add", address, "dev", interface)
            self.inside(space, "ip", "link", "set", interface, "up")
        return a, b

    def host(self, name: str, network: str) -> tuple[str, str]:
        """Add a public host on ``network`` (three numbers); return its namespace and address."""
        space = self.space(name)
        self.link(self.core, f"{network}.1/24", space, f"{network}.2/24")
        self.inside(space, "ip", "route", "add", "default", "via", f"{network}.1")
        return space, f"{network}.2"

    def site(self, name: str, network: str, number: int) -> "Site":
        """Add a site: a router on ``network``, without NAT at first, and a host behind it."""
        router, inside = self.space(f"{name}-router"), self.space(name)
        _, outer = self.link(self.core, f"{network}.1/24", router, f"{network}.2/24")
        self.link(router, f"192.168.{number}.1/24", inside, f"192.168.{number}.2/24")
        self.inside(router, "ip", "route", "add", "default", "via", f"{network}.1")
        self.inside(router, "sysctl", "-qw", "net.ipv4.ip_forward=1")
        self.inside(inside, "ip", "route", "add", "default", "via", f"192.168.{number}.1")
        return Site(self, router, inside, outer, f"{network}.2", f"192.168.{number}.2")

    def device_of(self, space: str, host: str) -> str:
        """Return the interface that has an address."""
        show = ["ip", "netns", "exec", space, "ip", "-o", "-4", "address", "show"]
        shown = subprocess.run(show, capture_output=True, text=True, check=True).stdout
        return next(line.split()[1] for line in shown.splitlines() if f" {host}/" in line)

    @property
    def core(self) -> str:
        return self.spaces[0]


@dataclass
class Site:
    """A host behind a router."""

    net: Internet
    router: str
    space: str
    outer_interface: str
    outer_host: str
    host: str

    def set_nat(self, kind: str) -> None:
        """Make the router's NAT one of ``KINDS``."""
        masquerade = "masquerade random,fully-random" if kind == "symmetric" else "masquerade"
        forward = f'iifname "{self.outer_interface}" ct state new drop' if kind != "full-cone" else ""
        target = f"dnat to {self.host}" if kind == "full-cone" else ""
        into = f'iifname "{self.outer_interface}" ip daddr {self.outer_host} {target}' if target else ""
        rules = f"""
            flush ruleset
            table ip site {{
                chain out {{ type nat hook postrouting priority 100; oifname "{self.outer_interface}" {masquerade}; }}
                chain in {{ type nat hook prerouting priority -100; {into}; }}
                chain through {{ type filter hook forward priority 0; {forward}; }}
                chain self {{ type filter hook input priority 0; iifname "{self.outer_interface}" ct state new drop; }}
            }}
        """.replace("; ; }", "; }")
        self.net.inside(self.router, "nft", "-f", "-", stdin=rules)


@contextmanager
def internet() -> Iterator[Internet]:
    """Make an internet with nothing but its core; all of it goes at the end."""
    net = Internet(f"depin{os.getpid()}x{next(_numbers)}")
    try:
        core = net.space("core")
        net.inside(core, "sysctl", "-qw", "net.ipv4.ip_forward=1")
        yield net
    finally:
        for space in net.spaces:
            subprocess.run(["ip", "netns", "del", space], check=False, capture_output=True)
