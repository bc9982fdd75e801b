"""How fast py-libp2p as published moves bytes by a stream between two processes on loopback, for ``net_blob.py``.

    .venv/bin/python benchmarks/net_library.py ask

For each line on stdin, a number of bytes, it moves as many and prints MB/s (10⁶ bytes); it ends when stdin does. Before
that it starts the other process, ``hold``, connects to it, and prints ``ready``.

Our own network mends the library in its process (``depin_node.p2p.libp2p.mends``) and so cannot show what who takes
py-libp2p from the registry gets. Here is that: nothing of ``depin_node`` is imported. TCP, Noise and yamux as
``new_host`` makes them, for each transfer a new stream of one connection, by which the holder writes the same zeros
again and again and the asker counts what it reads.

The settings are the fastest that were found for 256 MiB, in turns on two cores of an AMD EPYC (Zen 4), in MB/s:

- Writes of 65,507 bytes, 494: each fills one yamux frame, which fills one Noise message. Writes of 65,524 bytes 378, of
  131,014 410, of 1 MiB 372, of 32,747 300.
- Reads of 1 MiB, 494; of 256 KiB 485, of 64 KiB 472.
- ``PY_YAMUX_RELEASE_ON_READ=0``, 474: not an update of the window for each read. As it is preset 437, and with reads of
  64 KiB 264. Another ``PY_YAMUX_BATCH_THRESHOLD_DIV`` makes nothing faster, nor does one stream for all transfers.

No transfer with them failed.
"""

import os
import subprocess
import sys
import time

import trio
from libp2p import new_host
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.crypto.x25519 import create_new_key_pair as create_noise_key_pair
from libp2p.custom_types import TProtocol
from libp2p.io.utils import read_exactly
from libp2p.peer.peerinfo import info_from_p2p_addr
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE_ID
from libp2p.security.noise.transport import Transport as Noise
from libp2p.stream_muxer.yamux.yamux import PROTOCOL_ID as YAMUX_ID
from libp2p.stream_muxer.yamux.yamux import Yamux
from multiaddr import Multiaddr

WRITE_BYTES = 65_507
READ_BYTES = 1 << 20
YAMUX_OPTIONS = {"PY_YAMUX_RELEASE_ON_READ": "0"}
RAW = TProtocol("/raw/1")


def make_host():
    """Return a host that speaks Noise and yamux only."""
    keys = create_new_key_pair()
    noise = Noise(keys, noise_privkey=create_noise_key_pair().private_key)
    return new_host(key_pair=keys, sec_opt={NOISE_ID: noise}, muxer_opt={TProtocol(YAMUX_ID): Yamux})


async def hold() -> None:
    """Print where we are, and send what is asked for until stdin ends."""

    async def send(stream):
        """Send as many bytes as the first eight say."""
        left = int.from_bytes(await read_exactly(stream, 8), "little")
        data = bytes(WRITE_BYTES)
        while left:
            await stream.write(data[:left])
            left -= min(left, WRITE_BYTES)
        await stream.close()

    host = make_host()
    host.set_stream_handler(RAW, send)
    async with host.run(listen_addrs=[Multiaddr("/ip4/127.0.0.1/tcp/0")]):
        print(host.get_addrs()[0], flush=True)
        await trio.to_thread.run_sync(sys.stdin.read)


async def ask(address: str) -> None:
    """Receive as many bytes as each line says, and print how fast they came."""
    host, holder = make_host(), info_from_p2p_addr(Multiaddr(address))
    async with host.run(listen_addrs=[]):
        await host.connect(holder)
        print("ready", flush=True)
        while line := await trio.to_thread.run_sync(sys.stdin.readline):
            stream = await host.new_stream(holder.peer_id, [RAW])
            began, left = time.perf_counter(), int(line)
            await stream.write(left.to_bytes(8, "little"))
            while left:
                left -= len(await stream.read(READ_BYTES))
            took_s = time.perf_counter() - began
            await stream.close()
            print(int(line) / took_s / 1e6, flush=True)


def main() -> None:
    """Be one of the two processes; who asks starts the other."""
    os.environ |= YAMUX_OPTIONS  # the library looks there at each read
    if sys.argv[1] == "hold":
        trio.run(hold)
        return
    command = [sys.executable, __file__, "hold"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        trio.run(ask, holder.stdout.readline().strip())


if __name__ == "__main__":
    main()
