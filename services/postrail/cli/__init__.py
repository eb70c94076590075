"""The `postrail` command. Composes the services; nothing imports it."""
