"""asr-worker@N.service: the process with the engine, which may die at any moment."""
