"""The settings of the daemon that meets the worst mix of clients (docs/security.md)."""

from typing import Any

_MIB = 1 << 20
CLIENTS, QUEUED = 200, 30
PAYLOAD = 256 * 1024
SETTINGS: dict[str, Any] = {
    "connections_max": CLIENTS,
    "connections_max_per_user": CLIENTS,
    "wyoming_connections_max": 1,
    "queue_max": QUEUED,
    "queue_max_per_user": QUEUED,
    "jobs_max_per_connection": 10,
    "max_payload_bytes": PAYLOAD,
    "spool_max_bytes": 6 * _MIB,
    "spool_max_bytes_per_user": 6 * _MIB,
    "output_max_bytes": 512 * 1024,
    "unread_max_bytes": 16 * _MIB,
    "transcripts_max_bytes": 8 * _MIB,
    "frame_timeout_seconds": 300,
    "max_wait_seconds": 300,
}
