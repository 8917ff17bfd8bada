"""HTTP, and only HTTP: routes, status codes, event streams, access. The work is done elsewhere."""
