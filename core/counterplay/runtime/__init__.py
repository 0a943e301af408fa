"""The runtime: feeds collect events, runs act on them, a session ties both to a store."""
