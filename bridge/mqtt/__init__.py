"""The MQTT side: one connection to the broker, its subscriptions and packets, and state that outlasts it."""
