#!/usr/bin/env python3
"""``lossi`` inside a session: hands the command to the relay beside the container. Copied there; Python 3.9, standard library."""

from __future__ import annotations

import json
import os
import shutil
import socket
import struct
import sys
import time

PATIENCE_S = 15.0


def connected(place: str) -> socket.socket | None:
    """Return the way out; the relay of a session that has just begun is waited for."""
    patience = time.monotonic() + PATIENCE_S
    while place:
        outside = socket.socket(socket.AF_UNIX)
        try:
            outside.connect(place)
            return outside
        except OSError:
            outside.close()
            if time.monotonic() > patience:
                break
            time.sleep(0.1)
    return None


def main(arguments: list[str]) -> int:
    """Run a command outside and return its exit code."""
    outside = connected(os.environ.get("LOSSI_RELAY", ""))
    if outside is None:
        sys.stderr.write("lossi: this node has no Lossi outside of the container: use it on a login node or in the portal\n")
        return 5
    asked = {"argv": arguments, "cwd": os.getcwd(), "columns": shutil.get_terminal_size().columns}
    with outside:
        outside.sendall(json.dumps(asked).encode() + b"\n")
        stream = outside.makefile("rb")
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
