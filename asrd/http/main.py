"""The `asrd-http` program: the OpenAI API for transcripts, over the daemon's socket."""

import argparse
import logging
import resource
import socket
import sys
from typing import TYPE_CHECKING, Any

from asrd import stdio, systemd
from asrd.config import config_path, load_http
from asrd.errors import AsrdError, ConfigError
from asrd.exitcodes import EXIT_CONFIG, EXIT_FAILED
from asrd.journal import setup_logging
from asrd.listener import bind, unbind
from asrd.settings import HttpSettings
from asrd.version import __version__

if TYPE_CHECKING:
    from asrd.http.server import Server

log = logging.getLogger(__name__)

_UNIX = "unix:"
_BACKLOG = 4096


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="asrd-http",
        description="The OpenAI API for transcripts, served by asrd.",
    )
    parser.add_argument("--version", action="version", version=f"asrd-http {__version__}")
    parser.add_argument("--config", metavar="FILE", help="the settings file (asrd.toml)")
    parser.add_argument("--socket", metavar="PATH", help="the daemon's socket")
    parser.add_argument(
        "--listen",
        metavar="unix:PATH|HOST:PORT",
        help="where to listen, if not started by systemd",
    )
    return parser


def main(argv: list[str] | None = None) -> int:
    stdio.open_missing()
    args = build_parser().parse_args(argv)
    try:
        return _serve(args)
    except AsrdError as error:
        stdio.say(f"asrd-http: {error}")
        return EXIT_CONFIG if isinstance(error, ConfigError) else EXIT_FAILED


def _serve(args: argparse.Namespace) -> int:
    """Raises ConfigError."""
    flags: dict[str, Any] = {"socket": args.socket, "listen": args.listen}
    settings = load_http(config_path(args.config), flags)
    setup_logging(settings.log_level, "asrd-http")
    # Their other entries are about single connections.
    for library in ("uvicorn.error", "python_multipart"):
        logging.getLogger(library).setLevel(logging.ERROR)
    server = _make_server(settings)
    passed = [sock for found in systemd.listen_sockets().values() for sock in found]
    sockets = passed or [_listen(settings.listen)]
    try:
        if not settings.api_keys and any(sock.family != socket.AF_UNIX for sock in sockets):
            log.warning("everybody who can connect may transcribe: there are no api_keys")
        log.info("serving at %s", ", ".join(str(sock.getsockname()) for sock in sockets))
        server.run(sockets)
    finally:
        for sock in sockets:
            sock.close()
        if not passed and settings.listen.startswith(_UNIX):
            unbind(settings.listen.removeprefix(_UNIX))
    return 0


def _make_server(settings: HttpSettings) -> "Server":
    """Raises ConfigError, also if the libraries of the extra `http` are not installed."""
    try:
        from asrd.http.app import make_app
        from asrd.http.keys import Keys
        from asrd.http.server import Server
        from asrd.http.service import Service, descriptors
    except ModuleNotFoundError as error:
        text = f"{error.name} is not installed: pip install 'asrd[http]'"
        raise ConfigError(text) from None
    keys = Keys(settings.api_keys) if settings.api_keys else None
    _allow_descriptors(descriptors(settings))
    service = Service(settings)
    return Server(service, make_app(service, keys), keys)


def _allow_descriptors(needed: int) -> None:
    """Raises the limit of open files to its maximum: shells start with 1,024, for select(2)."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if needed > hard:
        text = "at most %d descriptors can be open, and clients may need %d: some may have to wait"
        log.warning(text, hard, needed)


def _listen(where: str) -> socket.socket:
    """Raises ConfigError."""
    if where.startswith(_UNIX):
        return bind(where.removeprefix(_UNIX))
    host, port = _host_and_port(where)
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        sock = socket.socket(family, kind, protocol)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(address)
            sock.listen(_BACKLOG)
        except OSError:
            sock.close()
            raise
    except OSError as error:
        raise ConfigError(f"cannot listen at {where}: {error.strerror or error}") from None
    return sock


def _host_and_port(where: str) -> tuple[str, int]:
    host, _, port = where.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65_535:
        raise ConfigError(f"http.listen: {where!r} must be unix:PATH, HOST:PORT or [IPv6]:PORT")
    return host.strip("[]"), int(port)


if __name__ == "__main__":
    sys.exit(main())
