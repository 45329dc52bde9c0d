"""One customer's story over segment-analytics-python: `segment_python.py HOST KEY PREFIX` prints what it was told."""

import json
import sys
from datetime import UTC, datetime

from segment.analytics import Client

host, key, prefix = sys.argv[1:]
errors: list[str] = []
client = Client(key, host=host, gzip=True, upload_interval=0.1, on_error=lambda error, items: errors.append(str(error)))
user, visitor = f"{prefix}-user", f"{prefix}-visitor"
client.track(anonymous_id=visitor, event="Product Viewed", message_id=f"{prefix}-view")
client.identify(user, {"plan": "pro"}, anonymous_id=visitor, message_id=f"{prefix}-identify")
order = {"revenue": 49.9, "ordered": datetime(2026, 3, 1, tzinfo=UTC)}
client.track(user, "Order Completed", order, message_id=f"{prefix}-order")
client.page(user, name="Prices", message_id=f"{prefix}-page")
client.screen(user, name="Prices", message_id=f"{prefix}-screen")
client.group(user, "acme", {"employees": 80}, message_id=f"{prefix}-group")
client.alias(f"{prefix}-before", user, message_id=f"{prefix}-alias")
client.flush()
client.join()
sys.stdout.write(json.dumps({"errors": errors}))
