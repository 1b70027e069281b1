"""Films of what is played: saving, watching, exporting, deleting them."""
