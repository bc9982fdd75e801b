"""An Internet Gateway Device on the router of a site of ``netns``: SSDP, a description, SOAP, and rules of nftables.

python fake_gateway.py INNER_HOST OUTER_HOST OUTER_INTERFACE      one line of JSON for each request
"""

import http.server
import json
import re
import socket
import struct
import subprocess
import sys
import threading

PORT = 5000
GROUP, SSDP_PORT = "239.255.255.250", 1900
SERVICE = "urn:schemas-upnp-org:service:WANIPConnection:1"
DEVICE = "urn:schemas-upnp-org:device:{}:1"


def description() -> str:
    service = (
        f"<service><serviceType>{SERVICE}</serviceType><serviceId>urn:upnp-org:serviceId:WANIPConn1</serviceId>"
        "<controlURL>/control</controlURL><eventSubURL>/event</eventSubURL><SCPDURL>/scpd.xml</SCPDURL></service>"
    )
    inner = f"<serviceList>{service}</serviceList>"
    for kind in ("WANConnectionDevice", "WANDevice"):
        inner = f"<deviceList><device><deviceType>{DEVICE.format(kind)}</deviceType>{inner}</device></deviceList>"
    return (
        '<?xml version="1.0"?><root xmlns="urn:schemas-upnp-org:device-1-0"><device>'
        f"<deviceType>{DEVICE.format('InternetGatewayDevice')}</deviceType>{inner}</device></root>"
    )


class Handler(http.server.BaseHTTPRequestHandler):
    outer_host = outer_interface = ""

    def do_GET(self) -> None:
        self.answer(description())

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"])).decode()
        action = self.headers["soapaction"].strip('"').rpartition("#")[2]
        fields = dict(re.findall(r"<(New\w+)>([^<]*)<", body))
        print(json.dumps({"action": action, **fields}), flush=True)
        answers = {
            "GetStatusInfo": {"NewConnectionStatus": "Connected", "NewUptime": "1", "NewLastConnectionError": "NONE"},
            "GetExternalIPAddress": {"NewExternalIPAddress": self.outer_host},
            "AddPortMapping": {},
        }
        if action == "AddPortMapping":
            target = f"{fields['NewInternalClient']}:{fields['NewInternalPort']}"
            outer = f'iifname "{self.outer_interface}" tcp dport {fields["NewExternalPort"]}'
            nft(f"add rule ip site in {outer} dnat to {target}")
            nft("insert rule ip site through ct status dnat accept")
        inner = "".join(f"<{name}>{value}</{name}>" for name, value in answers[action].items())
        self.answer(
            '<?xml version="1.0"?><s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Body>'
            f'<u:{action}Response xmlns:u="{SERVICE}">{inner}</u:{action}Response></s:Body></s:Envelope>'
        )

    def answer(self, text: str) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/xml")
        self.send_header("content-length", str(len(text.encode())))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *args: object) -> None:
        pass


def nft(rule: str) -> None:
    subprocess.run(["nft", *rule.split(" ")], check=True)


def answer_searches(inner_host: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ssdp:
        ssdp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        ssdp.bind((GROUP, SSDP_PORT))
        membership = struct.pack("4s4s", socket.inet_aton(GROUP), socket.inet_aton(inner_host))
        ssdp.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, membership)
        while True:
            data, asker = ssdp.recvfrom(2048)
            wanted = re.search(rb"(?mi)^ST: *([^\r\n]+)", data)
            if wanted:
                reply = (
                    "HTTP/1.1 200 OK\r\nCACHE-CONTROL: max-age=60\r\nEXT:\r\nSERVER: fake UPnP/1.0\r\n"
                    f"LOCATION: http://{inner_host}:{PORT}/rootDesc.xml\r\n"
                    f"ST: {wanted[1].decode()}\r\nUSN: uuid:1\r\n\r\n"
                )
                ssdp.sendto(reply.encode(), asker)


if __name__ == "__main__":
    inner, Handler.outer_host, Handler.outer_interface = sys.argv[1:]
    threading.Thread(target=answer_searches, args=(inner,), daemon=True).start()
    server = http.server.ThreadingHTTPServer((inner, PORT), Handler)
    print(json.dumps({"action": "ready"}), flush=True)
    server.serve_forever()
