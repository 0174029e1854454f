"""Markets whose truth is known, to tell skill from luck."""

from stages.markets.planted import Market, gated, mixed, noise_iid, sequence, tabular

__all__ = ["Market", "gated", "mixed", "noise_iid", "sequence", "tabular"]
