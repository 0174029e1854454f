"""From what was decided to what it would have been worth, with every cost on the way."""
