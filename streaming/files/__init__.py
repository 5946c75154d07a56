"""Streams on disk."""
