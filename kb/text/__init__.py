"""What text means, whatever it is for: terms, numbers, sentences. Nothing here reads a database."""
