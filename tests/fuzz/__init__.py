"""Hostile input from strangers, made by Hypothesis."""
