"""From passages to a cited answer: who writes it, its short form, and the check of its claims."""
