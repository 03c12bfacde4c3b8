"""The stages of a run, each kept in the store."""
