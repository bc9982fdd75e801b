"""What of libp2p is never loaded: shown in processes of their own, since an import cannot be taken back."""

import json
import subprocess
import sys

COUNT = """
import json, sys
from depin_node.p2p.libp2p import left_out
{before}
import depin_node.p2p.libp2p.host
loaded = {{name.partition(".")[0] for name in sys.modules}}
used = ""
try:
    import libp2p.relay.circuit_v2.transport as transport
    transport.CircuitV2Transport().reserve
except RuntimeError as error:
    used = str(error)
except TypeError:
    used = "it is there"
print(json.dumps([sorted(loaded & {{"aioquic", "dns", "httpx", "prometheus_client", "requests", "zeroconf"}}), used]))
"""


def loaded(before: str = "") -> tuple[list[str], str]:
    """Return which of the large libraries a node loads, and what using a part that is left out says."""
    run = [sys.executable, "-c", COUNT.format(before=before)]
    found, used = json.loads(subprocess.run(run, check=True, capture_output=True, text=True).stdout)
    return found, used


def test_a_node_loads_no_library_that_it_never_uses_and_hears_of_it_if_it_does() -> None:
    found, used = loaded()
    assert found == []
    assert "CircuitV2Transport is left out" in used


def test_without_the_mend_they_are_all_loaded() -> None:
    found, used = loaded("sys.meta_path = [f for f in sys.meta_path if not isinstance(f, left_out._Finder)]")
    assert len(found) == 6
    assert used == "it is there"
