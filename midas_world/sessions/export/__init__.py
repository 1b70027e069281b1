"""A recorded session in the formats that others read."""
