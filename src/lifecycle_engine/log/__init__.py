"""The log: where an accepted touchpoint becomes durable, and from which workers read it in order.

One port, two adapters: a table of the database on a laptop, Apache Kafka in production.
"""
