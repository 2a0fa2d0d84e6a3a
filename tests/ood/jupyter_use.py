"""How the tests use Jupyter sessions: log in with the card's form, run code in a kernel, occupy ports."""

from __future__ import annotations

import asyncio
import re
import subprocess
import uuid

import aiohttp
from batch_connect import PORTAL, App, Proxied

VALUES = {
    "cluster": "ci",
    "environment": "sklearn",
    "queue": "ci--small",
    "gpu_type": "none",
    "gpus": "0",
    "cores": "2",
    "memory_gb": "2",
    "hours": "1",
    "account": "",
    "folder": "",
    "interface": "lab",
    "portal_origin": PORTAL,
}


def logged_in(proxied: Proxied, password: str) -> str:
    """Post the card's form and return the browser's cookies; they are Secure, as the portal uses https."""
    with proxied.browser(Origin=PORTAL) as browser:
        answer = browser.post("login", data={"password": password})
        assert answer.status_code == 302, answer.text[:500]
        marked = answer.headers.get_list("set-cookie")
        assert any("HttpOnly" in cookie and "Secure" in cookie for cookie in marked), marked
        pairs = [cookie.partition(";")[0] for cookie in marked]
        page = browser.get("lab", headers={"Cookie": "; ".join(pairs)})
        assert page.status_code == 200 and "JupyterLab" in page.text
        return "; ".join([*pairs, *(cookie.partition(";")[0] for cookie in page.headers.get_list("set-cookie"))])


def xsrf(cookie: str) -> dict[str, str]:
    token = re.search(r"_xsrf=([^;]+)", cookie)
    return {"X-XSRFToken": token[1]} if token else {}


async def executed(proxied: Proxied, cookie: str, kernel: str, code: str) -> str:
    """Run code in a kernel over the websocket and return what it prints."""
    url = f"http://{proxied.host}:{proxied.port}{proxied.base}api/kernels/{kernel}/channels"
    headers = {**proxied.headers, "Cookie": cookie, "Origin": PORTAL}
    content = {"code": code, "silent": False, "store_history": False, "user_expressions": {}, "allow_stdin": False}
    header = {
        "msg_id": uuid.uuid4().hex,
        "username": "",
        "session": uuid.uuid4().hex,
        "msg_type": "execute_request",
        "version": "5.3",
    }
    output = ""
    async with aiohttp.ClientSession() as client, client.ws_connect(url, headers=headers) as ws:
        message = {"header": header, "parent_header": {}, "metadata": {}, "content": content, "channel": "shell", "buffers": []}
        await ws.send_json(message)
        while True:
            answer = await asyncio.wait_for(ws.receive_json(), 300)
            if answer["parent_header"].get("msg_id") != header["msg_id"]:
                continue
            if answer["msg_type"] == "stream":
                output += answer["content"]["text"]
            if answer["msg_type"] == "error":
                output += "\n".join(answer["content"]["traceback"])
            if answer["msg_type"] == "status" and answer["content"]["execution_state"] == "idle":
                return output


class squatters:  # noqa: N801
    """Another user's listeners at consecutive ports of an address of the node, for a block."""

    def __init__(self, app: App, user: str, number: int, address: str = "127.0.0.2") -> None:
        code = (
            "import socket, sys\n"
            "for base in range(33100, 60000, 7):\n"
            "    held = []\n"
            "    try:\n"
            "        for port in range(base, base + int(sys.argv[1])):\n"
            "            sock = socket.socket(); sock.bind((sys.argv[2], port)); sock.listen(); held.append(sock)\n"
            "        break\n"
            "    except OSError: pass\n"
            "print(*[sock.getsockname()[1] for sock in held], flush=True)\n"
            "sys.stdin.read()\n"
        )
        self.argv = app.cluster.argv_as(user, ["/usr/bin/python3", "-c", code, str(number), address])

    def __enter__(self) -> list[int]:
        self.process = subprocess.Popen(self.argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd="/")
        assert self.process.stdout
        return [int(word) for word in self.process.stdout.readline().split()]

    def __exit__(self, *_: object) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait(300)
