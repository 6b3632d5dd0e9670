"""Connections to the broker and to GDN: dialled with back-off, within TLS, non-blocking once they stand."""
