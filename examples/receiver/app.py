"""Verifies what comes, passes over duplicates, and knows each customer's stage, in whatever order it is told."""

import os

from fastapi import FastAPI, HTTPException, Request
from standardwebhooks import Webhook, WebhookVerificationError

app, webhook = FastAPI(), Webhook(os.environ["WEBHOOK_SECRET"])
seen: set[str] = set()  # For real: a table, written in one transaction with what the event changes.
stages: dict[tuple[str | None, ...], tuple[int, str]] = {}


@app.post("/hook", status_code=204)
async def hook(request: Request) -> None:
    try:
        event = webhook.verify(await request.body(), dict(request.headers))
    except (WebhookVerificationError, ValueError) as error:
        raise HTTPException(401, f"not from whom I expect it: {error}") from None
    if (id_ := request.headers["webhook-id"]) in seen:
        return print(f"{id_} again, passed over", flush=True)
    if event["type"] == "stage.changed":
        data = event["data"]
        name = data.get("customer_id"), data.get("anonymous_id")
        journey = (*name, data["lifecycle"], data["subject"])
        known, stage = stages.get(journey, (0, "nowhere"))
        if data["sequence"] > known:
            stages[journey] = data["sequence"], data["to"]
            print(f"{name[0] or name[1]} is in {data['to']}, and was in {stage}", flush=True)
        else:
            print(f"change {data['sequence']} of {name[0] or name[1]} is old, {known} is known", flush=True)
    seen.add(id_)
