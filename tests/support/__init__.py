"""What several suites share: real peers started on loopback, and the search for the tools that they need."""
