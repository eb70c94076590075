"""Generated protobuf, and the codec between it and core's types."""
