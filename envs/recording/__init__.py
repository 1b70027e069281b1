"""Recording any environment as a session."""
