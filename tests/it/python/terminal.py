"""Runs a command on a terminal of its own and prints one JSON object with all that the terminal was sent.

usage: terminal.py PROGRAM [ARGUMENT ...]
"""

import json
import os
import pty
import sys

pid, terminal = pty.fork()
if pid == 0:
    os.execv(sys.argv[1], sys.argv[1:])
sent = b""
while True:
    try:
        piece = os.read(terminal, 65536)
    except OSError:  # the other side is closed
        break
    if not piece:
        break
    sent += piece
code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
print(json.dumps({"code": code, "sent": sent.decode("utf-8", "replace")}))
