"""`kubectl postrail`: what the commands say, and what is changed by hand, on a cluster. Everything goes through `kubectl`."""
