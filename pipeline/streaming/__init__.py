"""Bars as they come: read, checked, predicted, stored, told, and only then acknowledged."""
