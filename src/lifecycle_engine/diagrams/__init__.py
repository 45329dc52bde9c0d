"""Diagrams of a definition, drawn from the tables that the fold looks up, so that they cannot tell another story.

Pure: standard library and `lifecycle` only. Whatever comes from a document is arbitrary text here.
"""
