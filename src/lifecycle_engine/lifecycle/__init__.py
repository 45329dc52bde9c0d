"""The pure heart: what a lifecycle is, and what a customer's touchpoints make of it.

Nothing in here reads a clock, a file or a socket. Time is an argument, an `int` of microseconds since
1970-01-01T00:00:00Z. `fold.py` holds the law; the other modules are the nouns it speaks of.
"""
