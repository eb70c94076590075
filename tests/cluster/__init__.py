"""The end-to-end tests on a Kubernetes cluster, which `make test-e2e` runs. `make test` leaves them out."""
