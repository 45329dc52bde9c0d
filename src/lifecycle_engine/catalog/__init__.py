"""Definitions as documents: reading them from text, and those that come with the program."""
