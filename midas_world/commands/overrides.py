"""Words of a command line that override a preset's values."""

import re
from collections.abc import Sequence

_OVERRIDE = re.compile(r"[a-z_]+(\.[a-z_0-9]+)*=")
_DOTTED = re.compile(r"[a-z_]+(\.[a-z_0-9]+)+=")


def find_overrides(argv: Sequence[str]) -> list[str]:
    """Return the words that override a preset's values: `world.backbone.num_layers=4`.

    Where an env is given keyword arguments or weights of policies, only words with a dot are.
    """
    has_pairs = not {"--env-kwargs", "--policy"}.isdisjoint(argv)
    pattern = _DOTTED if has_pairs else _OVERRIDE
    return [word for word in argv if pattern.match(word)]
