"""Alembic's entry: runs migrations on the connection that `kb.storage.database` hands over."""

from alembic import context

from kb.storage.tables import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    transactional_ddl=True,
)
context.run_migrations()
