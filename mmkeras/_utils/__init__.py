"""Small helpers of the package's own; nothing here is public."""
