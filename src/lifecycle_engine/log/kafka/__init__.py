"""The log on Apache Kafka.

`appender` is the way in, `reader` the way out, `backlog` tells what is between them, `connection` is what all need.
"""

from lifecycle_engine.log.kafka.appender import KafkaAppender
from lifecycle_engine.log.kafka.backlog import KafkaBacklog
from lifecycle_engine.log.kafka.reader import KafkaReader

__all__ = ["KafkaAppender", "KafkaBacklog", "KafkaReader"]
