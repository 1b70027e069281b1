"""The networks of a world: what each part is, and the world model made of them."""
