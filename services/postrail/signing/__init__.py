"""Signing: adds the DKIM signatures to accepted messages."""
