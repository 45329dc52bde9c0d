"""The questions that are asked about customers: where they stand, where they stood, and what led there.

`known_at` is always an instant; `aggregates.LATEST` asks for all that is known now. Times are in microseconds since
the epoch, UTC.
"""
