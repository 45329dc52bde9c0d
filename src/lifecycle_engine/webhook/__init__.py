"""Delivers what the outbox holds, signed, to the endpoints that asked for it."""
