"""The Kubernetes operator: turns Postrail's custom resources into the services' configuration.

Owns the custom resources and what is rendered from them. It imports `postrail.core` only, never a service, and never handles
mail. The handlers are not written yet; the package holds its place in the layers that import-linter checks.
"""
