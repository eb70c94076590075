"""The durable log: one narrow interface (`interface`), its implementations, and what they share (`progress`)."""
