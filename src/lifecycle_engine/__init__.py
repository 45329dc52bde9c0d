"""Which stage of its lifecycle a customer is in, since when and why, now and as of any day."""

__version__ = "0.1.0"
