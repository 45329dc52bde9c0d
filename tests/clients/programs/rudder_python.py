"""One customer's story over rudder-sdk-python: `rudder_python.py HOST KEY PREFIX` prints what it was told."""

import json
import sys

from rudderstack.analytics.client import Client

host, key, prefix = sys.argv[1:]
errors: list[str] = []
client = Client(key, host=host, upload_interval=0.1, on_error=lambda error, items: errors.append(str(error)))
user, visitor = f"{prefix}-user", f"{prefix}-visitor"
client.track(anonymous_id=visitor, event="Product Viewed", message_id=f"{prefix}-view")
client.identify(user, {"plan": "pro"}, anonymous_id=visitor, message_id=f"{prefix}-identify")
client.track(user, "Order Completed", {"revenue": 49.9}, message_id=f"{prefix}-order")
client.page(user, name="Prices", message_id=f"{prefix}-page")
client.screen(user, name="Prices", message_id=f"{prefix}-screen")
client.group(user, "acme", {"employees": 80}, message_id=f"{prefix}-group")
client.alias(f"{prefix}-before", user, message_id=f"{prefix}-alias")
client.flush()
client.join()
sys.stdout.write(json.dumps({"errors": errors}))
