"""Sends a recording to asrd-http, and prints the status and the answer. Runs in the machine, which
has only Python.

    python3 post.py PATH|PORT FILE [KEY]
"""

import http.client
import socket
import sys

place, file, *keys = sys.argv[1:]
connection = http.client.HTTPConnection("127.0.0.1", timeout=60)
if place.isdecimal():
    connection.sock = socket.create_connection(("127.0.0.1", int(place)), 60)
else:
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(place)
with open(file, "rb") as opened:
    audio = opened.read()
head = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'
headers = {"Content-Type": "multipart/form-data; boundary=b"}
if keys:
    headers["Authorization"] = f"Bearer {keys[0]}"
connection.request("POST", "/v1/audio/transcriptions", head + audio + b"\r\n--b--\r\n", headers)
answer = connection.getresponse()
print(answer.status, answer.read().decode())
