"""The predict call's way around FastAPI and the database; docs/explanation/fast-paths.md has its reasons."""
