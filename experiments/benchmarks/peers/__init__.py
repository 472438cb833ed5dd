"""The other toolkits: their pinned environments, and the workers that drive them."""
