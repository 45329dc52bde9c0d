"""The ways in for touchpoints, in every format, and what became of them."""
