"""The Kubernetes operator: turns Postrail's custom resources into the services' configuration and into senders.

Owns the custom resources and what is made of them. It imports `postrail.core` only, never a service, and never handles mail.
Decisions are pure (`leases`, `compose`, `conditions`, `statuses`, `senders`, `render`, `plan`, `scaling`);
`handlers`, `reconcile`, `client` and `prometheus` talk to the cluster.
"""
