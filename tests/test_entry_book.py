"""What games know of things along their world."""

import numpy as np
import pytest

from midas_world.config import WorldConfig, load_preset
from midas_world.model.entry_book import EntryBook

LOOP = 1600
COIN, FIRE = 0, 6
COLUMN = 8.0  # px of a column of the fine grid at Stage


@pytest.fixture(scope="module")
def config() -> WorldConfig:
    return load_preset("stage").world


class Game:
    """One game, whose pictures show what is in `world`.

    Attributes:
        told: Of each step, classes and world places of the codes.
        num_draws: Of chance.
    """

    def __init__(self, config: WorldConfig, *, seed: int = 0, start: float = 0.0) -> None:
        self.config, self.book = config, EntryBook(config, 1)
        self.rng = np.random.default_rng(seed)
        self.chances = np.zeros((1, 2, config.entries.num_classes + 1), np.float32)
        self.chances[..., -1] = 1
        self.world: list[tuple[int, float]] = []
        self.told: list[list[tuple[int, float]]] = []
        self.num_draws = 0
        self.x = start
        self.book.reset([0], np.array([start % LOOP]), self.seen())

    def seen(self) -> np.ndarray:
        columns = self.config.grid[1]
        things = np.zeros((1, self.config.entries.num_classes, columns), np.float32)
        for kind, place in self.world:
            column = round((place - self.x) / COLUMN + (columns - 1) / 2)
            if 0 <= column < columns:
                things[0, kind, column] = 0.9
        return things

    def draw(self, row: int) -> float:
        assert row == 0
        self.num_draws += 1
        return self.rng.random()

    def walk(self, steps: int, px: float) -> "Game":
        for _ in range(steps):
            self.x += px
            told = self.book.advance(np.array([self.x % LOOP]), self.draw)[0]
            codes = [(int(kind), float(place) + self.x) for kind, place in told if kind >= 0]
            self.told.append(codes)
            self.world += [code for code in codes if self.is_new(code)]
            self.book.observe(self.chances, self.seen())
        return self

    def is_new(self, code: tuple[int, float]) -> bool:
        return all(code[0] != kind or abs(code[1] - place) > 1 for kind, place in self.world)

    def likely(self, *, left: float = 0.0, right: float = 0.0) -> "Game":
        """Let coins come with these chances at the sides; otherwise nothing comes."""
        self.chances[0, :, COIN] = left, right
        self.chances[0, :, -1] = 1 - left, 1 - right
        self.book.observe(self.chances, self.seen())
        return self

    def places(self) -> list[float]:
        return sorted(place for _, place in self.world)


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


def test_equal_seeds_give_equal_things_and_others_do_not(config):
    one, two, other = (
        Game(config, seed=seed).likely(right=0.2).walk(80, 6.0).world for seed in (1, 1, 2)
    )
    assert one == two
    assert one != other


def test_rates_follow_the_given_chances(config):
    game = Game(config)
    game.chances[0, 1] = 0
    game.chances[0, 1, [COIN, FIRE, -1]] = 0.1, 0.3, 0.6
    game.book.observe(game.chances, game.seen())
    kinds = np.zeros(8)
    real = game.book._add

    def count(row: int, kind: int, place: float, *, is_told: bool) -> None:
        kinds[kind] += is_told
        real(row, kind, place, is_told=is_told)

    game.book._add = count
    for _ in range(1000):
        game.x += 32.0
        game.book.advance(np.array([game.x % LOOP]), game.draw)
    assert game.num_draws == 4000
    np.testing.assert_allclose(kinds / 4000, [0.1, 0, 0, 0, 0, 0, 0.3, 0], atol=0.02)


def test_a_code_is_told_from_outside_the_picture_until_it_is_inside(config):
    game = Game(config).likely(right=1.0).walk(2, 6.0).likely().walk(30, 6.0)
    half, entries = config.width / 2, config.entries
    for step, codes in enumerate(game.told):
        camera = 6.0 * (step + 1)
        for _, place in codes:
            assert half - entries.inside <= abs(place - camera) <= half + entries.outside
    assert all(any(codes) for codes in game.told[1:6])
    assert not game.told[-1]


def test_a_thing_that_left_is_told_again_at_the_same_place(config):
    game = Game(config).likely(right=1.0).walk(2, 6.0).likely().walk(2, 6.0)
    world = list(game.world)
    assert len(world) == 2
    game.walk(80, 6.0)
    assert not game.told[-1]
    game.told.clear()
    game.walk(80, -6.0)
    again = {(kind, round(place, 3)) for codes in game.told for kind, place in codes}
    assert again == {(kind, round(place, 3)) for kind, place in world}
    assert game.world == world


def test_what_the_first_frame_shows_is_known_but_not_told(config):
    game = Game(config)
    game.world = [(FIRE, 100.0)]
    game.book.reset([0], np.array([0.0]), game.seen())
    game.walk(1, 0.0)
    assert not game.told[-1]
    game.walk(60, 6.0).walk(40, -6.0)
    told = {(kind, place) for codes in game.told for kind, place in codes}
    assert {kind for kind, _ in told} == {FIRE}
    assert all(abs(place - 100.0) <= COLUMN / 2 for _, place in told)


def test_a_collected_thing_does_not_come_back(config):
    game = Game(config)
    game.world = [(COIN, 100.0)]
    game.book.reset([0], np.array([0.0]), game.seen())
    game.walk(10, 6.0)  # 40 px before it
    game.world.clear()
    game.walk(2, 0.0)
    assert (game.book.codes[0, :, 0] == COIN).any()  # a flicker is no loss
    game.walk(1, 0.0)
    assert not (game.book.codes[0, :, 0] == COIN).any()
    game.walk(60, 6.0).walk(60, -6.0)
    assert not any(game.told)


def test_a_thing_behind_the_character_or_at_the_edge_is_not_missed(config):
    for place in (10.0, 150.0):
        game = Game(config)
        game.world = [(COIN, place)]
        game.book.reset([0], np.array([0.0]), game.seen())
        game.world.clear()
        game.walk(10, 0.0)
        assert (game.book.codes[0, :, 0] == COIN).sum() == 1


def test_a_thing_seen_without_a_code_gets_one(config):
    game = Game(config).walk(1, 0.0)
    game.world = [(FIRE, 60.0), (FIRE, 68.0)]
    game.walk(3, 0.0)
    codes = game.book.codes[0]
    assert codes[codes[:, 0] >= 0][:, 0].tolist() == [FIRE]  # the other one is too near


def test_no_more_are_told_than_there_is_room_and_those_at_the_edge_win(config):
    game = Game(config).likely(right=1.0).walk(10, 8.0)
    codes = game.told[-1]
    assert len(codes) == config.entries.capacity
    away = [abs(abs(place - game.x) - config.width / 2) for _, place in codes]
    assert away == sorted(away)


def test_the_farthest_code_is_forgotten_first(config):
    game = Game(config).likely(right=0.9).walk(60, 8.0)
    known = game.book.codes[0][:, 1]
    assert (game.book.codes[0][:, 0] >= 0).all()
    assert known.min() > min(game.places())
    assert known.max() == max(game.places())


def test_the_camera_goes_on_over_the_end_of_its_loop(config):
    game = Game(config, start=1590.0).walk(10, 6.0).walk(20, -6.0)
    assert game.book.camera[0] == pytest.approx(1530.0)
    assert game.num_draws == 0 + round(60 / 8) + round(60 / 8)


def test_a_loaded_state_goes_on_exactly(config):
    game = Game(config).likely(left=0.2, right=0.2).walk(30, 6.0)
    state, x = game.book.state(), game.x
    other = Game(config, start=x)
    other.book.load_state(state)
    other.chances, other.world = game.chances, list(game.world)
    for each in (game, other):
        each.rng = np.random.default_rng(5)
        each.told.clear()
        each.walk(60, -6.0).walk(100, 6.0)
    assert game.told == other.told
    assert any(game.told)
    for name, array in game.book.state().items():
        np.testing.assert_array_equal(array, other.book.state()[name])
    assert (state["camera"] == x).all()  # a copy
    assert all(len(array) == 1 for array in state.values())


def test_games_do_not_mix(config):
    alone = Game(config).likely(right=0.3)
    book = EntryBook(config, 2)
    book.reset([0, 1], np.array([500.0, 0.0]), None)
    rngs = [np.random.default_rng(9), np.random.default_rng(0)]
    chances = np.concatenate((alone.chances[:, ::-1], alone.chances))
    book.observe(chances, np.zeros((2, *alone.seen().shape[1:]), np.float32))
    for step in range(1, 20):
        told = book.advance(
            np.array([500.0 - 6 * step, 6.0 * step]), lambda row: rngs[row].random()
        )
        expected = alone.book.advance(np.array([6.0 * step]), alone.draw)
        np.testing.assert_array_equal(told[1], expected[0])
    before = book.state()
    book.reset([0], np.array([3.0]), None)
    for name, array in book.state().items():
        np.testing.assert_array_equal(array[1], before[name][1])
    assert (book.codes[0, :, 0] == -1).all()


def test_a_world_without_classes_draws_nothing():
    config = load_preset("dream").world
    book = EntryBook(config, 2)
    book.reset([0, 1], np.zeros(2), None)

    def draw(_: int) -> float:
        raise AssertionError("nothing is drawn")

    told = book.advance(np.array([0.0, 300.0]), draw)
    assert told.shape == (2, config.entries.capacity, 2)
    assert (told == -1).all()
    book.observe(np.ones((2, 2, 1), np.float32), np.zeros((2, 0, config.grid[1]), np.float32))
    assert book.state()["codes"].shape == (2, 0, 4)
