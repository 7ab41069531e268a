"""The client library; its public names stand in the package `asrd` itself."""
