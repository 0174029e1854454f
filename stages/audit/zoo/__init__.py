"""Planted leaks, and honest pipelines that look like them: the audit is measured on both."""

from stages.audit.zoo.leaks import LEAKS, Leak

__all__ = ["LEAKS", "Leak"]
