"""The tests of Postrail; `make test` runs them. tests/support holds the peers and tools that several suites share."""
