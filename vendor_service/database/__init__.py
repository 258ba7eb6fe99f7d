"""The vendor's books: tables, migrations, and short transactions on SQLite or PostgreSQL."""
