"""A node of ``reach_node.py`` in a network namespace, asked by the test that started it."""

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from depin_node.crypto.identity import Identity, peer_id

SCRIPT = Path(__file__).with_name("reach_node.py")
DEADLINE_S = 120.0


def peer_of(name: str) -> str:
    return peer_id(Identity(hashlib.sha256(name.encode()).digest()).key)


class Node:
    """A process in a namespace."""

    def __init__(self, space: str, name: str, peers: list[str], **setting: Any) -> None:
        setting = {"seed": name, "listen": ["/ip4/0.0.0.0/tcp/4701"], "peers": peers, **setting}
        self.peer = peer_of(name)
        self.is_up = False
        with open(os.environ.get("REACH_LOG", os.devnull), "a") as log:
            self.process = subprocess.Popen(
                ["ip", "netns", "exec", space, sys.executable, str(SCRIPT), json.dumps(setting)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )

    def _read(self) -> Any:
        assert self.process.stdout is not None
        return json.loads(self.process.stdout.readline())

    def ask(self, command: str, *arguments: Any) -> Any:
        assert self.process.stdin is not None
        if not self.is_up:
            self.is_up = bool(self._read())
        self.process.stdin.write(json.dumps([command, *arguments]) + "\n")
        self.process.stdin.flush()
        return self._read()

    def view(self) -> dict[str, Any]:
        return self.ask("view")["ok"]

    def until(self, holds: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
        return self.wait_for(self.view, holds)

    def wait_for(self, look: Callable[[], Any], holds: Callable[[Any], object]) -> Any:
        end = time.monotonic() + DEADLINE_S
        while not holds(seen := look()):
            assert time.monotonic() < end, f"still {seen}"
            time.sleep(0.1)  # between two looks at another process
        return seen

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()
