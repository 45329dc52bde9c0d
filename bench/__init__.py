"""Measured beside what it could be and what it replaces, on real Kafka and PostgreSQL (`make bench`).

One file a measurement: `throughput` (HTTP to queryable stage, with one lifecycle and with two), `worker` (the worker
alone), `steps` and `refolds` (the fold), `deadlines` (timers that fire), `memory` (of a worker). What they start:
`targets`, beside `bare`, `day_one` and `floor`. `load` drives any of them, `lives` has a customer's whole life,
`processes` runs them, `report` holds the tables.
"""
