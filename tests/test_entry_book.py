"""What games know beside the picture: things along their world, lives, the last hit."""

import numpy as np
import pytest

from midas_world.config import WorldConfig, load_preset
from midas_world.model.entry_book import EntryBook
from midas_world.types import LONGEST_SINCE_HIT

LOOP = 1600
COIN, FIRE = 0, 6


@pytest.fixture(scope="module")
def config() -> WorldConfig:
    return load_preset("stage").world


class Game:
    """One game in which nothing is gone until a test says so.

    Attributes:
        told: Of each step, classes and world places of the codes.
        gone: Places whose codes are gone in the next step.
        num_draws: Of chance.
    """

    def __init__(
        self, config: WorldConfig, *things: tuple[int, float], seed: int = 0, start: float = 0.0
    ) -> None:
        self.config, self.book = config, EntryBook(config, 1)
        self.rng = np.random.default_rng(seed)
        self.chances = np.zeros((1, 2, config.entries.num_classes + 1), np.float32)
        self.chances[..., -1] = 1
        self.told: list[list[tuple[int, float]]] = []
        self.gone: set[float] = set()
        self.num_draws = 0
        self.x = start
        self.book.begin([0], np.array([start % LOOP]), [np.float32(things).reshape(-1, 2)])

    def draw(self, row: int) -> float:
        assert row == 0
        self.num_draws += 1
        return self.rng.random()

    def walk(self, steps: int, px: float) -> "Game":
        for _ in range(steps):
            self.x += px
            told = self.book.advance(np.array([self.x % LOOP]), self.draw)[0]
            places = [round(float(place) + self.x, 2) for _, place in told]
            codes = zip(told[:, 0].astype(int).tolist(), places, strict=True)
            self.told.append([code for code in codes if code[0] >= 0])
            gone = np.array([place in self.gone for place in places])
            self.book.observe(self.chances, gone[None])
        return self

    def likely(self, *, left: float = 0.0, right: float = 0.0) -> "Game":
        """Let coins come with these chances at the sides; otherwise nothing comes."""
        self.chances[0, :, COIN] = left, right
        self.chances[0, :, -1] = 1 - left, 1 - right
        self.book.observe(self.chances, np.zeros((1, self.config.entries.capacity), bool))
        return self

    @property
    def world(self) -> list[tuple[int, float]]:
        """All codes that are known, by place."""
        codes = self.book.codes[0]
        known = codes[codes[:, 0] >= 0].tolist()
        return sorted(((int(kind), place) for kind, place in known), key=lambda code: code[1])

    def places(self) -> list[float]:
        return [place for _, place in self.world]


def test_a_strip_is_drawn_once_however_often_the_camera_passes(config):
    game = Game(config).likely(left=0.3, right=0.3)
    game.walk(40, 6.0)
    assert game.num_draws == 240 // 8
    drawn, count = game.places(), game.num_draws
    assert drawn
    game.walk(40, -6.0).walk(40, 6.0)
    assert (game.num_draws, game.places()) == (count, drawn)
    game.walk(1, 8.0)
    assert game.num_draws == count + 1


def test_things_enter_at_the_side_that_comes_into_view(config):
    right = Game(config).likely(left=1.0).walk(20, 6.0)
    assert not right.world
    left = Game(config).likely(left=1.0).walk(20, -6.0)
    # A strip's middle, beyond the edge of the picture, at every strip.
    assert left.places() == [float(place) for place in left.places() if place % 8 == 4]
    assert np.diff(left.places()).tolist() == [8.0] * (len(left.world) - 1)
    first = next(codes for codes in left.told if codes)
    assert all(kind == COIN for kind, _ in first)


def test_rates_follow_the_given_chances(config):
    game = Game(config)
    game.chances[0, 1] = 0
    game.chances[0, 1, [COIN, FIRE, -1]] = 0.1, 0.3, 0.6
    game.book.observe(game.chances, np.zeros((1, game.config.entries.capacity), bool))
    met = {code for _ in range(1000) for code in game.walk(1, 32.0).world}
    assert game.num_draws == 4000
    kinds = np.bincount([kind for kind, _ in met], minlength=8)
    np.testing.assert_allclose(kinds / 4000, [0.1, 0, 0, 0, 0, 0, 0.3, 0], atol=0.02)


def test_codes_are_told_as_long_as_they_are_in_view_the_nearest_first(config):
    things = [(FIRE, 20.0), (COIN, -150.0), (COIN, 100.0)]
    game = Game(config, *things)
    reach = config.width / 2 + config.entries.outside
    for px in (6.0, -6.0):
        for _ in range(80):
            codes = game.walk(1, px).told[-1]
            seen = [code for code in things if abs(code[1] - game.x) <= reach]
            assert codes == sorted(seen, key=lambda code: abs(code[1] - game.x))
    assert {len(codes) for codes in game.told} == {0, 1, 2, 3}
    assert game.world == sorted(things, key=lambda code: code[1])


def test_a_thing_that_is_gone_is_told_no_more(config):
    game = Game(config, (FIRE, 20.0), (COIN, 26.0)).walk(4, 6.0)
    game.gone = {26.0}
    assert len(game.walk(1, 0.0).told[-1]) == 2  # in the step that takes it, it is told
    assert game.world == [(FIRE, 20.0)]
    game.gone.clear()
    game.told.clear()
    game.walk(60, 6.0).walk(60, -6.0)
    assert {code for codes in game.told for code in codes} == {(FIRE, 20.0)}


def test_the_farthest_code_is_forgotten_first(config):
    game = Game(config).likely(right=0.9).walk(30, 8.0)
    early = game.places()
    known = game.walk(60, 8.0).places()
    assert len(known) == len(game.book.codes[0])
    assert known[0] > early[0]
    assert known[-1] > game.x + config.width / 2


def test_hits_take_lives_and_show_for_a_while(config):
    book = EntryBook(config, 3)

    def step(*hits: bool) -> np.ndarray:
        """Return the tally of the step after one with these hits."""
        book.advance(np.zeros(3), lambda _: 0.0)
        book.observe(book.probabilities.copy(), np.zeros((3, config.entries.capacity), bool))
        book.hit(np.array(hits))
        return book.tally()

    np.testing.assert_allclose(book.tally(), [[1.0, LONGEST_SINCE_HIT]] * 3)
    tally = step(True, False, False)
    assert tally.dtype == np.float32
    np.testing.assert_allclose(tally, [[2 / 3, 1], [1, LONGEST_SINCE_HIT], [1, LONGEST_SINCE_HIT]])
    np.testing.assert_allclose(step(False, True, False)[:2], [[2 / 3, 2], [2 / 3, 1]])
    for _ in range(5):
        tally = step(False, True, False)
    np.testing.assert_allclose(tally[:2], [[2 / 3, 7], [0, 1]])  # no less than none
    assert book.lives.tolist() == [2, 0, 3]
    state = book.state()
    for _ in range(2 * LONGEST_SINCE_HIT):
        tally = step(False, False, False)
    assert tally[:, 1].tolist() == [LONGEST_SINCE_HIT] * 3
    book.begin([1], np.zeros(1), [np.zeros((0, 2))])
    assert book.lives[1] == 0  # a cut gives none back
    book.refill([1])
    assert book.lives.tolist() == [2, 3, 3]
    book.load_state(state)
    np.testing.assert_allclose(book.tally()[:2], [[2 / 3, 7], [0, 1]])
    book.refill([1])
    np.testing.assert_allclose(book.tally()[:2], [[2 / 3, 7], [1, LONGEST_SINCE_HIT]])


def test_a_game_without_things_has_no_code_and_the_same_chance(config):
    games = [Game(config, (COIN, 10.0), seed=1) for _ in range(2)]
    games[1].book.shows_things[:] = False
    games[1].book.begin([0], np.zeros(1), [np.array([(COIN, 10.0)])])
    for game in games:
        game.chances[..., FIRE] = 9.0
        game.walk(30, 6.0)
    assert any(games[0].told)
    assert not any(games[1].told)
    assert games[0].num_draws == games[1].num_draws > 0
    assert games[1].rng.random() == games[0].rng.random()


@pytest.mark.parametrize("code", [(7.0, 0.0), (0.5, 0.0), (-2.0, 0.0), (0.0, np.inf)])
def test_codes_that_no_table_has_are_refused(config, code):
    book = EntryBook(config, 1)
    book.check_codes(book.codes)
    book.codes[0, 0] = code
    with pytest.raises(ValueError, match="classes below 7"):
        book.check_codes(book.codes)


def test_a_world_without_classes_draws_nothing():
    config = load_preset("dream").world
    book = EntryBook(config, 2)
    book.begin([0, 1], np.zeros(2), [np.zeros((0, 2)), np.array([(COIN, 8.0)])])

    def draw(_: int) -> float:
        raise AssertionError("nothing is drawn")

    told = book.advance(np.array([0.0, 300.0]), draw)
    assert told.shape == (2, config.entries.capacity, 2)
    assert (told == -1).all()
    book.observe(np.ones((2, 2, 1), np.float32), np.ones((2, config.entries.capacity), bool))
    assert book.state()["codes"].shape == (2, 0, 2)
    book.hit(np.array([True, False]))  # it counts no lives either
    assert book.lives.tolist() == [0, 0]
    assert book.tally().tolist() == [[1.0, 1.0], [1.0, LONGEST_SINCE_HIT]]
