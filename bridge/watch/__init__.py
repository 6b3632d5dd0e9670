"""Whether the bridge and the far end work: checks, canary, row loss, metrics, the status server."""
