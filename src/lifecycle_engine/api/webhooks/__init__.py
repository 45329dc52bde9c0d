"""`/v1/webhooks`: who is told of changes, how that goes, and what there is to be told."""
