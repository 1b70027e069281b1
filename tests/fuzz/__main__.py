"""`python -m tests.fuzz --inputs 10000`: exit status 1 if anything was worse than a clear error."""

import argparse

from tests.fuzz.harness import run, table


def main() -> int:
    """Run, print the counts and what was bad."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--inputs", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="at most")
    parser.add_argument("--first-seed", type=int, default=0)
    options = parser.parse_args()
    counts, notes = run(options.inputs, seconds=options.seconds, first_seed=options.first_seed)
    print("\n".join([*notes, table(counts)]))
    return int(bool(notes))


if __name__ == "__main__":
    raise SystemExit(main())
