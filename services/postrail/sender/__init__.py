"""The sender: takes deliveries off the outbound topics and gives them to the receivers' mail servers."""
