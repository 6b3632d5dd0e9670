"""The data path: receives, maps, stores, acknowledges, sends and releases messages."""
