"""All that is served under `/v1/webhooks`, in one place."""

from __future__ import annotations

from lifecycle_engine.api.webhooks import deliveries, endpoints, events, messages, recoveries, secrets, trials

ROUTERS = (
    endpoints.router,
    secrets.router,
    trials.router,
    deliveries.router,
    messages.router,
    recoveries.router,
    events.router,
)
