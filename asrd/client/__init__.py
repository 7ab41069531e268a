"""The client library; the package `asrd` exports its public names."""
