"""Programs that use the service as anybody would: over HTTP, with a key."""
