"""A real Apache Kafka on loopback ports for development and tests: fetched from Maven Central, run as plain processes.

`distribution` brings the jars, `settings` writes a node's properties, `nodes` runs them; `python -m tools.kafka` is the command.
Needs Java 17 and, for the first time, Maven. Nothing here is part of Postrail as it is installed.
"""
