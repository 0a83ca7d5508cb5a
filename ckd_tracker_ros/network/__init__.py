"""The network: configuration, branches, elimination, head, and its weight files."""
