from collections import Counter

import numpy as np
import pytest

from envs.stage.controller import ACTIONS, PoseController
from envs.stage.game import INVULNERABLE_STEPS, MAX_HEARTS, GameObject, Kind, StageGame
from envs.stage.skeleton import GROUND_Y


def empty_game(*objects: GameObject) -> StageGame:
    game = StageGame(seed=0, start_x=0.0)
    game._segments = dict.fromkeys(range(-100, 100), ())
    game._segments[0] = objects
    return game


def standing_at(x: float) -> PoseController:
    controller = PoseController()
    controller.reset(x=x, facing=1)
    return controller


def walk(game: StageGame, controller: PoseController, action: str, steps: int) -> float:
    reward = 0.0
    for _ in range(steps):
        controller.step(ACTIONS.index(action))
        reward += game.step(controller)
    return reward


def test_objects_do_not_depend_on_the_order_of_visits():
    there = StageGame(seed=3, start_x=0.0)
    back = StageGame(seed=3, start_x=0.0)
    positions = [-900.0, 0.0, 500.0, 1700.0]
    seen = {x: there.visible(x) for x in positions}
    assert {x: back.visible(x) for x in reversed(positions)} == seen
    assert StageGame(seed=4, start_x=0.0).visible(500.0) != seen[500.0]


def test_nothing_lies_near_the_start():
    for seed in range(20):
        assert all(abs(i.x - 80.0) >= 120 for i in StageGame(seed=seed, start_x=80.0).visible(80.0))


@pytest.mark.parametrize("side", [-1, 1])
def test_density_is_about_one_obstacle_per_200_px_and_one_coin_per_110_px(side):
    game = StageGame(seed=1, start_x=0.0)
    items = {item for x in range(200, 60_000, 160) for item in game.visible(side * x)}
    kinds = Counter("coin" if item.kind is Kind.COIN else "obstacle" for item in items)
    assert 60_000 / kinds["obstacle"] == pytest.approx(200, rel=0.1)
    assert 60_000 / kinds["coin"] == pytest.approx(110, rel=0.1)


def test_obstacles_leave_room_to_land():
    game = StageGame(seed=1, start_x=0.0)
    items = {i for x in range(200, 20_000, 160) for i in game.visible(x) if i.kind is not Kind.COIN}
    assert np.diff(sorted(item.x for item in items)).min() >= 85


@pytest.mark.parametrize("height", [120.0, 80.0])
def test_walking_into_a_low_coin_gives_one_point_once(height):
    game = empty_game(GameObject(Kind.COIN, 60.0, height, 0))
    controller = standing_at(0.0)
    assert walk(game, controller, "walk_right", 60) == 1.0
    assert walk(game, controller, "walk_left", 80) == 0.0
    assert game.score == 1


def test_a_high_coin_needs_a_jump():
    game = empty_game(GameObject(Kind.COIN, 0.0, 40.0, 0))
    controller = standing_at(0.0)
    assert walk(game, controller, "idle", 5) == 0.0
    assert walk(game, controller, "jump", 10) == 1.0


@pytest.mark.parametrize("kind", [Kind.ROCK, Kind.FIRE])
def test_an_obstacle_costs_a_heart_and_then_nothing_for_a_while(kind):
    game = empty_game(GameObject(kind, 20.0, GROUND_Y, 0))
    controller = standing_at(20.0)
    walk(game, controller, "idle", 1)
    assert game.hearts == MAX_HEARTS - 1
    assert game.flinch == 1.0
    walk(game, controller, "idle", INVULNERABLE_STEPS - 1)
    assert game.hearts == MAX_HEARTS - 1
    assert game.flinch == 0.0
    walk(game, controller, "idle", 1)
    assert game.hearts == MAX_HEARTS - 2
    walk(game, controller, "idle", INVULNERABLE_STEPS)
    assert game.is_over


@pytest.mark.parametrize("kind", [Kind.ROCK, Kind.FIRE])
@pytest.mark.parametrize("action", ["leap_right", "jump_right"])
def test_a_jump_clears_an_obstacle(kind, action):
    start = 46.0 if action == "leap_right" else 24.0
    game = empty_game(GameObject(kind, 150.0, GROUND_Y, 0))
    controller = standing_at(150.0 - start)
    walk(game, controller, action, 15)
    assert controller.x > 150.0
    assert game.hearts == MAX_HEARTS


def test_a_kick_breaks_a_rock_in_front_but_not_behind_and_not_a_fire():
    rock = GameObject(Kind.ROCK, 40.0, GROUND_Y, 0)
    behind = GameObject(Kind.ROCK, -40.0, GROUND_Y, 0)
    fire = GameObject(Kind.FIRE, 30.0, GROUND_Y, 0)
    game = empty_game(behind, fire, rock)
    walk(game, standing_at(0.0), "kick", 8)
    assert game.visible(0.0) == [behind, fire]
    assert game.hearts == MAX_HEARTS
