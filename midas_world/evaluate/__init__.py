"""The evaluation of a world against its teacher: same seeds, same actions, frame by frame."""
