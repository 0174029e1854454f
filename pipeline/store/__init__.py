"""Signals kept for good: a SQLite file, or PostgreSQL by its URL."""
