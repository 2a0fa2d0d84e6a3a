#!/usr/bin/env python3
"""``lossi`` inside a session: passes the command to the relay outside the container. Copied there; Python 3.9, standard library."""

from __future__ import annotations

import json
import os
import shutil
import socket
import struct
import sys
import time

PATIENCE_S = 15.0


def connect(path: str) -> socket.socket | None:
    """Return a connection to the relay; waits for the relay of a session that has just started."""
    deadline = time.monotonic() + PATIENCE_S
    while path:
        relay = socket.socket(socket.AF_UNIX)
        try:
            relay.connect(path)
            return relay
        except OSError:
            relay.close()
            if time.monotonic() > deadline:
                break
            time.sleep(0.1)
    return None


def main(arguments: list[str]) -> int:
    """Run a command outside the container and return its exit code."""
    relay = connect(os.environ.get("LOSSI_RELAY", ""))
    if relay is None:
        sys.stderr.write("lossi: this node has no Lossi outside the container: use it on a login node or in the portal\n")
        return 5
    command = {"argv": arguments, "cwd": os.getcwd(), "columns": shutil.get_terminal_size().columns}
    with relay:
        relay.sendall(json.dumps(command).encode() + b"\n")
        stream = relay.makefile("rb")
        while True:
            head = stream.read(5)
            if len(head) < 5:
                sys.stderr.write("lossi: the connection to the node was lost\n")
                return 5
            data = stream.read(struct.unpack("!I", head[1:])[0])
            if head[:1] == b"x":
                return int(data) & 255
            target = sys.stdout if head[:1] == b"o" else sys.stderr
            target.buffer.write(data)
            target.flush()


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
