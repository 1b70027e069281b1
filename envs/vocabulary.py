"""What of a player's words a teacher understands: fields, such as the weather, and their names.

The parser is general; a teacher declares its own words as a `Vocabulary`. It reads phrases, the
longest first, in any language that the vocabulary has, forgives slips of the keyboard, hears "no
rain", binds a colour to its garment, and tells what it did not understand. Knows no scene.
"""

import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from itertools import product

from rapidfuzz import fuzz, process
from rapidfuzz.distance import OSA

# Slips that are forgiven: one, in words of so many letters; two in long ones.
_ONE_SLIP_LETTERS = 4
_ANY_SLIP_LETTERS = 5
_TWO_SLIPS_LETTERS = 9
NONE = "none"
_ARTICLES = ("a", "an", "the")
_BREAKS = ",;:.!?()|·"
# How many words may stand between a negation or a colour and what it is about.
_REACH = 4
_NEAR_PERCENT = 65.0
_MAX_READ = 4096


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """The words that a teacher has for what it can show.

    A word that ends in "*" stands for all that begin so.

    Attributes:
        names: Per field its names, each with the phrases that say just that.
        hints: Per field and name the phrases that lead there too, and give way to those.
        opposites: What is left of a field if one of its names is denied.
        nouns: Things with colours, such as garments, and which name each stands for; NONE: none.
        colours: Which name a colour stands for, by itself or before a noun; NONE: none has it.
        coloured: The field that nouns and colours are of.
        wearing: Words after which a colour alone counts.
        negations: Words that deny what follows.
        alternatives: Words that carry a denial on, such as "or".
        turns: Words that end a denial, such as "but".
        fillers: Words that say nothing.
        others: Words of their own that look like slips of known ones.
    """

    names: Mapping[str, Mapping[str, Sequence[str]]]
    hints: Mapping[str, Mapping[str, Sequence[str]]]
    opposites: Mapping[tuple[str, str], str]
    nouns: Mapping[str, Sequence[str]]
    colours: Mapping[str, Sequence[str]]
    coloured: str
    wearing: Sequence[str]
    negations: Sequence[str]
    alternatives: Sequence[str]
    turns: Sequence[str]
    fillers: Sequence[str]
    others: Sequence[str] = ()

    def understand(self, text: str) -> "Understanding":
        """Return what of a text is understood, and what is not."""
        items = list(self._bind(self._items(text)))
        wanted, denied = _claims(items)
        names: dict[str, str] = {}
        lost = {item.said: item for item in items if item.kind in ("unknown", "noun")}
        for name, claims in wanted.items():
            best = max(claims, key=lambda claim: claim.rank)
            names[name] = best.name
        for claims in wanted.values():
            for claim in claims:
                item = claim.item
                if not any(names.get(f) == n for f, (n, _) in item.meanings.items()):
                    lost[item.said] = item
        for name, claims in denied.items():
            left = {self.opposites.get((name, claim.name)) for claim in claims} - {None}
            if name in names:
                continue
            if left:
                names[name] = sorted(map(str, left))[0]
            else:
                lost |= {claim.item.said: claim.item for claim in claims}
        unknown = tuple((said, self._nearest(said)) for said in lost)
        return Understanding(names={f: names[f] for f in self.names if f in names}, unknown=unknown)

    def _items(self, text: str) -> Iterator["_Item"]:
        """Yield the phrases of a text, the longest known one first at each place."""
        words = _words(text)
        readings = [self._readings(word) for word in words]
        place = 0
        while place < len(words):
            length, known = self._phrase(readings[place:])
            said = " ".join(words[place : place + length])
            if known is not None:
                yield _Item(said=said, kind=known.kind, meanings=known.meanings)
            else:
                yield _Item(said=said, kind="break" if said in _BREAKS else "unknown")
            place += length

    def _phrase(self, readings: Sequence[tuple[str, ...]]) -> tuple[int, "_Item | None"]:
        """Return how many words the longest phrase here has, and what it is; else one and None."""
        for length in range(min(self._longest, len(readings)), 0, -1):
            for words in product(*readings[:length]):
                if words in self._table:
                    return length, self._table[words]
        return 1, None

    def _bind(self, items: Iterator["_Item"]) -> Iterator["_Item"]:
        """Yield the items, with nouns and the colours about them made one."""
        listed = list(items)
        for place, item in enumerate(listed):
            if item.kind != "noun":
                continue
            beside = (_beside(listed, place, direction) for direction in (-1, 1))
            colour = next((index for index in beside if index is not None), None)
            if colour is not None:
                said = sorted((place, colour))
                item.said = " ".join(listed[index].said for index in said)
                item.meanings, listed[colour].kind = listed[colour].meanings, "filler"
            item.kind = "meaning" if item.meanings else "unknown"
        for place, item in enumerate(listed):
            if item.kind == "colour":
                item.kind = _alone(listed, place)
                if item.kind == "meaning" and not item.meanings:
                    item.kind = "unknown"
        yield from listed

    @cached_property
    def _table(self) -> dict[tuple[str, ...], "_Item"]:
        """Every known phrase as its words, and what it is."""
        table: dict[tuple[str, ...], _Item] = {}

        def add(phrase: str, kind: str, meanings: "dict[str, tuple[str, int]]") -> None:
            words = tuple(_words(phrase, keeps_stems=True))
            words = words[1:] if words[0] in _ARTICLES and len(words) > 1 else words
            for key in {words, ("".join(words),)}:
                if key not in table or table[key].kind == "filler":
                    table[key] = _Item(said=phrase, kind=kind, meanings={})
                if table[key].kind == "meaning":
                    table[key].meanings = meanings | table[key].meanings

        for strength, listed in ((1, self.names), (0, self.hints)):
            for name_of, names in listed.items():
                for name, phrases in names.items():
                    for phrase in (name, *phrases) if strength else phrases:
                        add(phrase, "meaning", {name_of: (name, strength)})
        for kind, listed in (("noun", self.nouns), ("colour", self.colours)):
            for name, phrases in listed.items():
                for phrase in phrases:
                    add(phrase, kind, {})
                    item = table[tuple(_words(phrase, keeps_stems=True))]
                    if name != NONE and item.kind == kind:
                        item.meanings = {self.coloured: (name, 1)}
        for kind, phrases in (
            ("negation", self.negations),
            ("alternative", self.alternatives),
            ("turn", self.turns),
            ("wearing", self.wearing),
            ("filler", self.fillers),
        ):
            for phrase in phrases:
                add(phrase, kind, {})
        return table

    @cached_property
    def _longest(self) -> int:
        return max(len(words) for words in self._table)

    @cached_property
    def _lexicon(self) -> frozenset[str]:
        return frozenset(word for words in self._table for word in words)

    @cached_property
    def _stems(self) -> tuple[str, ...]:
        """Beginnings of words, the longest first."""
        return tuple(sorted((w for w in self._lexicon if w.endswith("*")), key=len, reverse=True))

    @cached_property
    def _spelled(self) -> tuple[str, ...]:
        return tuple(sorted(w for w in self._lexicon if len(w.rstrip("*")) >= _ONE_SLIP_LETTERS))

    @cached_property
    def _other_words(self) -> frozenset[str]:
        return frozenset(word for phrase in self.others for word in _words(phrase))

    @cached_property
    def _readings(self) -> Callable[[str], tuple[str, ...]]:
        """What a word may mean; looked up once for each word."""
        return lru_cache(maxsize=_MAX_READ)(self._known)

    def _known(self, word: str) -> tuple[str, ...]:
        """Return the known words that a word may mean: itself, a stem, or what it is a slip of."""
        if word in self._other_words or word in _BREAKS:
            return (word,)
        stem = next((stem for stem in self._stems if word.startswith(stem[:-1])), None)
        found = [key for key in (word if word in self._lexicon else None, stem) if key]
        return tuple(found) or (self._spelled_right(word) or word,)

    def _spelled_right(self, word: str) -> str | None:
        """Return the only known word that a word can be a slip of."""
        if len(word) < _ONE_SLIP_LETTERS or any(letter.isdigit() for letter in word):
            return None
        slips = 2 if len(word) >= _TWO_SLIPS_LETTERS else 1
        near = process.extract(
            word, self._spelled, scorer=OSA.distance, score_cutoff=slips, limit=None
        )
        fits = [(distance, known) for known, distance, _ in near if _is_slip(word, known)]
        if not fits:
            return None
        least = min(distance for distance, _ in fits)
        # Of several, the one that begins and ends alike.
        return max((known for d, known in fits if d == least), key=lambda k: fuzz.ratio(word, k))

    def _nearest(self, said: str) -> str:
        """Return the name that is spelled most like what was said; nothing if none is other."""
        names = [name for names in self.names.values() for name in names]
        if said in names:
            return ""
        found = process.extractOne(said, names, scorer=fuzz.ratio, score_cutoff=_NEAR_PERCENT)
        return found[0] if found else ""


@dataclass(frozen=True, kw_only=True)
class Understanding:
    """What of a text was understood."""

    names: Mapping[str, str]
    unknown: tuple[tuple[str, str], ...]

    @property
    def not_understood(self) -> str:
        """What was not understood, in words, such as "dragon (nearest: desert)"."""
        return ", ".join(
            f"{said} (nearest: {nearest})" if nearest else said for said, nearest in self.unknown
        )


@dataclass(kw_only=True)
class _Item:
    """A phrase of a text, or of the vocabulary: what was said, and what that is."""

    said: str
    kind: str
    meanings: dict[str, tuple[str, int]] = field(default_factory=dict)  # field: name, strength


@dataclass(frozen=True, kw_only=True)
class _Claim:
    """A name that an item gives a field."""

    name: str
    rank: tuple[int, int]
    item: _Item


def _claims(items: Sequence[_Item]) -> tuple[dict[str, list[_Claim]], dict[str, list[_Claim]]]:
    """Return per field the names that are wanted and those that are denied."""
    wanted: dict[str, list[_Claim]] = {}
    denied: dict[str, list[_Claim]] = {}
    reach, was_denied = 0, False
    for item in items:
        if item.kind == "negation":
            reach = _REACH
        elif item.kind in ("turn", "break"):
            reach, was_denied = 0, False
        elif item.kind == "alternative":
            reach = _REACH if was_denied else 0
        elif item.kind == "meaning":
            was_denied, reach = reach > 0, 0
            for name_of, (name, strength) in item.meanings.items():
                claim = _Claim(name=name, rank=(strength, len(item.said)), item=item)
                (denied if was_denied else wanted).setdefault(name_of, []).append(claim)
        else:
            reach -= 1
    return wanted, denied


def _beside(items: Sequence[_Item], place: int, direction: int) -> int | None:
    """Return where the colour of a noun is, before it or after it; None if there is none."""
    for distance in range(1, _REACH + 1):
        index = place + direction * distance
        if not 0 <= index < len(items):
            return None
        if items[index].kind == "colour":
            return index
        if items[index].kind not in ("filler", "alternative"):
            return None
    return None


def _alone(items: Sequence[_Item], place: int) -> str:
    """Return what a colour without a noun is: a wish for clothes, or an adjective of a place."""
    said = [item for item in items if item.kind not in ("filler", "break")]
    if said == [items[place]]:
        return "meaning"
    after = items[place + 1].kind if place + 1 < len(items) else "break"
    before = [item.kind for item in reversed(items[max(0, place - _REACH) : place])]
    leads = next((kind for kind in before if kind != "filler"), "")
    if after in ("meaning", "unknown"):
        return "filler" if after == "meaning" else "unknown"
    is_worn = leads == "wearing" and (before[0] == "wearing" or after != "filler")
    return "meaning" if is_worn or leads == "negation" else "unknown"


def _is_slip(word: str, known: str) -> bool:
    """Return whether fingers may have made a word of a known one; it is close already."""
    right = known.rstrip("*")
    if sorted(word) == sorted(right):
        return True
    if word[0] != right[0]:
        return False
    # Short words are too many: only a letter that is missing.
    return len(word) >= _ANY_SLIP_LETTERS or len(right) > len(word)


def _words(text: str, *, keeps_stems: bool = False) -> list[str]:
    """Return the words of a text without case, accents and apostrophes, and its punctuation."""
    plain = unicodedata.normalize("NFKD", text.casefold())
    plain = "".join(letter for letter in plain if not unicodedata.combining(letter))
    plain = re.sub(r"n['\u2019]t\b", "nt", plain)
    pattern = r"\w+\*?" if keeps_stems else rf"\w+|[{re.escape(_BREAKS)}]"
    return re.findall(pattern, plain.replace("_", " "))
