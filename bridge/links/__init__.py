"""Connections to the broker and to GDN: dialled with back-off, with or without TLS, then non-blocking."""
