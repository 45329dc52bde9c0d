"""The composition root: settings in, running roles out. The only package that builds things and hears signals.

What serves HTTP takes most of a process's time to load, and is loaded only by those that do so.
"""

ROLES = ("api", "worker", "dispatcher", "timers")
"""Every role there is; a process runs all of them, or those that it is told to."""


class StartError(Exception):
    """The service cannot start; the text says why and what to do."""
