"""What this machine could do at best to move a blob: only what no transfer can do without, in one thread."""

import os
import socket
import tempfile
import time

from blake3 import blake3

CHUNK_BYTES = 1 << 20
CHUNKS = 64


def bound_mb_s(cipher, piece_bytes: int) -> float:
    """Read, seal, send, receive, open, hash and store chunks in one thread; return MB/s if two cores shared that."""
    chunk, sealed, opened = bytearray(CHUNK_BYTES), bytearray(piece_bytes + 16), bytearray(CHUNK_BYTES)
    nonce = bytes(12)
    with tempfile.TemporaryFile() as source, tempfile.TemporaryFile() as target:
        source.write(os.urandom(CHUNK_BYTES) * CHUNKS)
        source.flush()
        ours, theirs = tcp_pair()
        began = time.perf_counter()
        for index in range(CHUNKS):
            os.preadv(source.fileno(), [chunk], index * CHUNK_BYTES)
            for at in range(0, CHUNK_BYTES, piece_bytes):
                cipher.encrypt_into(nonce, memoryview(chunk)[at : at + piece_bytes], None, sealed)
                ours.sendall(sealed)
                theirs.recv_into(sealed, len(sealed), socket.MSG_WAITALL)
                cipher.decrypt_into(nonce, sealed, None, memoryview(opened)[at : at + piece_bytes])
            blake3(opened).digest()
            os.pwrite(target.fileno(), opened, index * CHUNK_BYTES)
        took_s = time.perf_counter() - began
        ours.close()
        theirs.close()
    return 2 * CHUNKS * CHUNK_BYTES / took_s / 1e6


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    """Return two ends of a connection on loopback that takes a piece without anybody reading."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        ours = socket.create_connection(server.getsockname())
        theirs, _ = server.accept()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * CHUNK_BYTES)
    return ours, theirs
