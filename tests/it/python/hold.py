"""Opens connections, says how many, and holds them until its standard input ends.

usage: hold.py PORT COUNT
"""

import socket
import sys

held = [socket.create_connection(("127.0.0.1", int(sys.argv[1]))) for _ in range(int(sys.argv[2]))]
print(len(held), flush=True)
sys.stdin.read()
