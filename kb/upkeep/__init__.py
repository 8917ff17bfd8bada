"""Prove that everything agrees, mend it, and remove things without a trace."""
