"""The database: the only truth. Everything else here is a view of it."""
