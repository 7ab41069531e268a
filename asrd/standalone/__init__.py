"""`asrd run` and `asrd demo`: front and workers without systemd."""
