"""`asrd run`, `asrd transcribe` and `asrd demo`: front and workers without systemd."""
