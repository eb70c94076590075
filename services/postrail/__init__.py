"""Postrail: mail delivery for a company's own services."""

__version__ = "0.1.0"
