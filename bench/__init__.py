"""Measured beside what it could be and what it replaces, on real Kafka and PostgreSQL (`make bench`).

One file a measurement: `throughput` (HTTP to queryable stage) and `worker` (the worker alone). What they start:
`targets`, beside `bare`, `day_one` and `floor`. `load` drives any of them, `processes` runs them, `report` holds the
tables.
"""
