"""The log on Apache Kafka: `appender` is the way in, `reader` the way out, `connection` what both need."""

from lifecycle_engine.log.kafka.appender import KafkaAppender
from lifecycle_engine.log.kafka.reader import KafkaReader

__all__ = ["KafkaAppender", "KafkaReader"]
