"""The feed: every change once, in an order that never changes, whoever commits when."""
