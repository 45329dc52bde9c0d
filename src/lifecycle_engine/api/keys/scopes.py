"""What keys can be allowed."""

SCOPES = (
    "ingest:write",
    "customers:read",
    "customers:write",
    "lifecycles:read",
    "lifecycles:write",
    "changes:read",
    "webhooks:read",
    "webhooks:write",
    "webhooks:secrets",
    "keys:read",
    "keys:write",
    "operate:read",
    "operate:write",
    "metrics:read",
)
"""Everything that a key can be allowed."""
ADMIN = "admin"
"""Stands for every scope, also those of later versions."""
