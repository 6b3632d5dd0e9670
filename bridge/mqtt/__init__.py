"""The broker's side: one connection, its subscriptions, its packets, and what outlasts the connection."""
