"""Recording another program's window and the keys that steer it, to learn a world from."""
