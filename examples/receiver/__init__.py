"""A receiver of webhooks, as a subscriber may write it."""
