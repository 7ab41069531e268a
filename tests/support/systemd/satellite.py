"""A Wyoming client over TCP inside the machine, as Home Assistant is one.

satellite.py HOST PORT FILE.wav      prints the type and the text of the answer
"""

import json
import socket
import sys
import wave


def main() -> None:
    host, port, path = sys.argv[1:]
    with wave.open(path) as file:
        format_ = {"rate": file.getframerate(), "width": 2, "channels": file.getnchannels()}
        audio = file.readframes(file.getnframes())
    chunk = {"type": "audio-chunk", "data": format_, "payload_length": len(audio)}
    with (
        socket.create_connection((host, int(port)), timeout=30) as sock,
        sock.makefile("rwb") as io,
    ):
        io.write(_line({"type": "transcribe", "data": {"language": "en-US"}}))
        io.write(_line({"type": "audio-start", "data": format_}))
        io.write(_line(chunk) + audio)
        io.write(_line({"type": "audio-stop"}))
        io.flush()
        header = json.loads(io.readline())
        print(header["type"], json.loads(io.read(header["data_length"]))["text"])


def _line(header: dict[str, object]) -> bytes:
    return json.dumps(header).encode() + b"\n"


if __name__ == "__main__":
    main()
