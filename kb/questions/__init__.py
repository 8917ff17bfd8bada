"""From a follow-up to a question that needs no history."""
