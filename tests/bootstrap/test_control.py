"""The control API of a real node, attacked from the same machine."""

import json
import socket

import httpx
import pytest

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
        except ConnectionError:
            pass
    assert http.get("/v1/status").status_code == 200


def test_the_token_is_in_no_log(node, control, http):
    assert http.get("/v1/status").status_code == 200
    assert http.get("/v1/nothing").status_code == 404
    secrets = (control["token"], (node.data_dir / "identity").read_text().strip())
    for text in (node.log(), node.stderr.read_text()):
        assert not any(secret in text for secret in secrets)
