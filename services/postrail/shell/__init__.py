"""Shared I/O: DNS, TLS, blobs, health, metrics, lifecycle, the stage loop."""
