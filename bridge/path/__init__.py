"""The way of a message through the bridge: received, mapped, stored, acknowledged, sent, receipted, released."""
