"""The scheduler: brings deferred mail back when its time has come."""
