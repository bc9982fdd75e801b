"""The control API of a real node, attacked from the same machine."""

import json
import random
import socket
import time

import httpx
import pytest

from depin_node.core.wire import encode
from depin_node.crypto.blob import blob_id
from depin_node.crypto.envelope import Envelope

pytestmark = pytest.mark.net


@pytest.fixture(scope="module")
def node(module_nodes):
    return module_nodes.start()


@pytest.fixture
def control(node):
    return json.loads((node.data_dir / "control.json").read_text())


@pytest.fixture
def http(control):
    headers = {"authorization": f"Bearer {control['token']}"}
    with httpx.Client(base_url=control["url"], headers=headers, trust_env=False) as client:
        yield client


def refused(answer, status, code):
    assert answer.status_code == status, answer.text
    assert answer.json()["code"] == code
    return answer.json()["message"]


def test_the_control_file_is_private(node, control):
    assert (node.data_dir / "control.json").stat().st_mode & 0o777 == 0o600
    assert set(control) == {"url", "token", "pid"}
    assert len(control["token"]) >= 43  # 256 bits


@pytest.mark.parametrize(
    "authorization", [None, "", "Bearer", "Bearer wrong", "bearer {token}", "Bearer {token}x", "{token}"]
)
def test_nothing_is_answered_without_the_token(control, authorization):
    headers = {} if authorization is None else {"authorization": authorization.format(**control)}
    for method, path in (("GET", "/v1/status"), ("POST", "/v1/jobs"), ("PUT", "/v1/blobs/x"), ("GET", "/nothing")):
        answer = httpx.request(method, control["url"] + path, headers=headers, trust_env=False)
        refused(answer, 401, "unauthorized")


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1", "127.0.0.1:1", "localhost", "0.0.0.0:{port}", ""])
def test_a_page_that_rebinds_its_name_to_us_is_refused(http, control, host):
    port = control["url"].rpartition(":")[2]
    refused(http.get("/v1/status", headers={"host": host.format(port=port)}), 421, "unauthorized")


def test_both_names_of_this_machine_will_do(http, control):
    port = control["url"].rpartition(":")[2]
    for host in ("127.0.0.1", "localhost"):
        assert http.get("/v1/status", headers={"host": f"{host}:{port}"}).status_code == 200


def test_two_hosts_or_two_tokens_are_refused(control):
    url = httpx.URL(control["url"])
    token = f"Authorization: Bearer {control['token']}\r\n"
    host = f"Host: 127.0.0.1:{url.port}\r\n"
    for headers in (host + host + token, host + token + token):
        with socket.create_connection((url.host, url.port)) as raw:
            raw.sendall(f"GET /v1/status HTTP/1.1\r\n{headers}\r\n".encode())
            assert int(raw.recv(65_536).split(b" ", 2)[1]) in (400, 401, 421)


def test_it_listens_on_loopback_only(control):
    assert control["url"].startswith("http://127.0.0.1:")


@pytest.mark.parametrize("path", ["/", "/v1", "/v1/nothing", "/docs", "/openapi.json"])
def test_other_paths_are_not_found(http, path):
    refused(http.get(path), 404, "not_found")


def test_wrong_methods_are_refused(http):
    refused(http.post("/v1/status"), 405, "config")


def test_a_web_socket_is_refused(control):
    url = httpx.URL(control["url"])
    with socket.create_connection((url.host, url.port)) as raw:
        raw.sendall(
            f"GET /v1/status HTTP/1.1\r\nHost: 127.0.0.1:{url.port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        assert raw.recv(65_536).split(b" ", 2)[1] == b"403"


@pytest.mark.parametrize(
    "garbage", [b"\0" * 1000, b"GET / HTTP/1.1\r\n" + b"x" * 100_000, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"]
)
def test_garbage_ends_its_connection_and_nothing_else(http, control, garbage):
    url = httpx.URL(control["url"])
    with socket.create_connection((url.host, url.port)) as raw:
        raw.settimeout(30)
        try:
            raw.sendall(garbage)
            raw.shutdown(socket.SHUT_WR)
            while raw.recv(65_536):
                pass
        except OSError:  # it may hang up first
            pass
    assert http.get("/v1/status").status_code == 200


def test_the_token_is_in_no_log(node, control, http):
    assert http.get("/v1/status").status_code == 200
    assert http.get("/v1/nothing").status_code == 404
    secrets = (control["token"], (node.data_dir / "identity").read_text().strip())
    for text in (node.log(), node.stderr.read_text()):
        assert not any(secret in text for secret in secrets)


def digest(data):
    return blob_id(data).hex()


@pytest.mark.parametrize("size", [0, 1, (1 << 20) - 1, 1 << 20, (5 << 20) + 7])
def test_blobs_are_kept_under_their_id(http, node, size):
    data = random.Random(size).randbytes(size)
    path = f"/v1/blobs/{digest(data)}"
    assert http.head(path).status_code == 404
    assert http.put(path, content=data).status_code == 204
    assert http.head(path).status_code == 204
    assert (node.data_dir / "blobs" / digest(data)).read_bytes() == data
    assert http.put(path, content=iter([data])).status_code == 204  # again, and without a length


def test_bytes_with_another_id_are_refused(http):
    assert "not " + digest(b"a") in refused(http.put(f"/v1/blobs/{digest(b'a')}", content=b"b"), 400, "config")
    assert http.head(f"/v1/blobs/{digest(b'a')}").status_code == 404


@pytest.mark.parametrize("name", ["x", "..", "%2e%2e%2fidentity", "0" * 63, "0" * 65, "A" * 64, "g" * 64, " " * 64])
def test_only_ids_name_blobs(http, name):
    answer = http.put(f"/v1/blobs/{name}", content=b"")
    assert answer.status_code in (400, 404)


def test_an_upload_that_breaks_off_leaves_nothing(http, control, node):
    url = httpx.URL(control["url"])
    path = f"/v1/blobs/{digest(b'whole')}"
    with socket.create_connection((url.host, url.port)) as raw:
        raw.sendall(
            f"PUT {path} HTTP/1.1\r\nHost: {url.host}:{url.port}\r\nAuthorization: Bearer {control['token']}\r\n"
            "Content-Length: 5\r\n\r\nwho".encode()
        )
    assert http.head(path).status_code == 404
    deadline = time.monotonic() + 30
    while list((node.data_dir / "blobs" / "partial").iterdir()):
        assert time.monotonic() < deadline, "the partial upload is still there"


def test_oversized_bodies_are_refused_before_they_are_read(control):
    url = httpx.URL(control["url"])
    for method, path, size in (("PUT", f"/v1/blobs/{'0' * 64}", (1 << 36) + 1), ("POST", "/v1/jobs", (64 << 10) + 1)):
        with socket.create_connection((url.host, url.port)) as raw:
            raw.sendall(
                f"{method} {path} HTTP/1.1\r\nHost: {url.host}:{url.port}\r\nAuthorization: Bearer {control['token']}"
                f"\r\nContent-Length: {size}\r\n\r\n".encode()
            )
            assert raw.recv(65_536).split(b" ", 2)[1] == b"400"


def test_a_job_body_that_grows_too_large_is_refused(http):
    message = refused(http.post("/v1/jobs", content=(b"x" * 1000 for _ in range(100))), 400, "config")
    assert "at most 65536 bytes" in message


@pytest.mark.parametrize(
    "body", [b"", b"\xc1", b"\x90", b"{}", b"\x81" * 60_000, encode(Envelope(bytes(32), bytes(64), b""))]
)
def test_what_is_no_job_is_refused(http, body):
    refused(http.post("/v1/jobs", content=body), 400, "violation")


def test_a_full_quota_is_said_and_survived(nodes):
    node = nodes.start("--disk-mib", 2)
    control = json.loads((node.data_dir / "control.json").read_text())
    with httpx.Client(
        base_url=control["url"], headers={"authorization": f"Bearer {control['token']}"}, trust_env=False
    ) as http:
        data = bytes(3 << 20)
        message = refused(http.put(f"/v1/blobs/{digest(data)}", content=data), 507, "resource")
        assert "raise the disk quota" in message
        assert http.put(f"/v1/blobs/{digest(b'small')}", content=b"small").status_code == 204
