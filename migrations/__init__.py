"""Schema migrations (Alembic). `graft migrate` and `graft up` bring a database to the newest."""
