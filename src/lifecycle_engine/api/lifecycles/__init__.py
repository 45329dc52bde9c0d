"""Definitions of lifecycles: posted, checked, drawn, activated."""
