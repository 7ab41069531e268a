"""The `asrctl` program."""
