"""Routing: decides for every recipient where its mail goes and from which address."""
