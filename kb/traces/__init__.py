"""How a stored answer was made: `kb replay` makes it again, `kb why` explains what is missing."""
