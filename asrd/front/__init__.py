"""asrd.service: the daemon that clients talk to; it never imports the engine. See `scheduler`."""
