"""The log in a Kafka cluster, through `aiokafka`, never a home-made broker.

Owns everything that knows Kafka's protocol. `log` composes it: `producer` appends, `consumer` reads as a member of a group,
`commits` stores what was finished, `watchdog` ends a process that is stuck. Design, what was found in the client, and
measurements: docs/design/2026-11-22-kafka-log.md.
"""

from postrail.log.kafka.log import KafkaLog, open_kafka_log

__all__ = ["KafkaLog", "open_kafka_log"]
