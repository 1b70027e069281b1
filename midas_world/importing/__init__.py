"""What others recorded or trained, brought into this project's own formats."""
