"""One file per group of routes. Each route: body model -> one call -> reply."""
