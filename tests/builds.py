"""Work of a `Preparation` for tests: imports nothing, so that its process starts at once."""

import time


def finish(name, sender):
    sender.send(("progress", f"building {name}, 50 %"))
    sender.send(("end", f"{name} is built"))


def crash(sender):
    raise SystemExit(3)


def hang(sender):
    sender.send(("progress", "building, 1 %"))
    time.sleep(600)
