"""Signals over HTTP, and the page on which they are watched."""
