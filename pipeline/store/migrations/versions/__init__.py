"""How a store came to its tables, version by version."""
