"""A page that shows what the node sees, for robots without a screen."""
